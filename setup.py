"""Builds the extensions, that for io_uring where liburing's header is; everything else stands in setup.cfg.

The appliance runs without them, on threads and a little slower: nothing that goes wrong here fails an installation.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# io_uring_prep_writev2 came with liburing 2.2 (2022); an older one can't build the extension.
PROBE = "#include <liburing.h>\nint main(void) { (void)io_uring_prep_writev2; return 0; }\n"


class BuildWhereItCan(build_ext):
    """Leaves io_uring out where liburing is missing or too old, without a page of compiler errors."""

    def build_extensions(self) -> None:
        if not self.has_liburing():
            print("no liburing 2.2 headers: building without io_uring")
            self.extensions = [extension for extension in self.extensions if extension.name != ring.name]
        super().build_extensions()

    def has_liburing(self) -> bool:
        """Ask the compiler: it alone knows all the places where it looks for a header."""
        folder = Path(self.build_temp)
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / "probe_liburing.c"
        source.write_text(PROBE)
        try:
            self.compiler.compile([str(source)], output_dir=str(folder / "probe"))
        except CompileError:
            return False
        return True


ring = Extension("backstores.engine._ring", ["backstores/engine/_ring.pyx"], libraries=["uring"], optional=True)
beside = Extension("backstores.engine._beside", ["backstores/engine/_beside.pyx"], optional=True)
setup(ext_modules=[ring, beside], cmdclass={"build_ext": BuildWhereItCan})
