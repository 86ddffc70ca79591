#!/usr/bin/env bash
# Set up what a make target needs: Debian packages (as root; otherwise the line to type is printed and
# what works without them goes on) and a virtual environment in .venv.
#
#   scripts/setup.sh run|test|bench|image
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-run}
python=${PYTHON:-python3}

missing=()
need() { # need PACKAGE TEST...: the package is missing when the test fails
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
quietly() { # quietly COMMAND...: what it says is shown when it fails
    local said
    said=$("$@" 2>&1) || { printf '%s\n' "$said" >&2 && return 1; }
}
python_serves() { "$python" -c 'import ensurepip, sys, venv; assert sys.version_info >= (3, 11)' &>/dev/null; }
include() { "$python" -c 'import sysconfig; print(sysconfig.get_path("include"))'; }
header() { test -e "$(include)/Python.h"; }

need python3 command -v "$python"
need python3-venv python_serves
# The io_uring extension is built where these are; the appliance runs without them, too.
need gcc command -v gcc
need libc6-dev test -e /usr/include/stdio.h
need python3-dev header
need liburing-dev test -e /usr/include/liburing.h
if [[ $target != run ]]; then
    need libiscsi-bin command -v iscsi-test-cu
    need qemu-utils command -v qemu-img
    need qemu-block-extra test -e "/usr/lib/$(uname -m)-linux-gnu/qemu/block-iscsi.so"
    need e2fsprogs command -v mke2fs
    need qemu-system-x86 command -v qemu-system-x86_64
fi
if [[ $target == image ]]; then
    need mmdebstrap command -v mmdebstrap
    need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
    need uidmap command -v newuidmap # for users: mmdebstrap makes the tree without root
    need fakeroot command -v fakeroot
    need fdisk command -v sfdisk
    need dosfstools command -v mkfs.vfat
    need mtools command -v mcopy
    need ovmf test -e /usr/share/OVMF/OVMF_CODE_4M.fd
    need openssh-client command -v ssh
elif [[ $target != run ]]; then
    need util-linux command -v losetup
    need mount command -v mount
    # The guest kernel with LIO, and what tests run in it.
    need user-mode-linux command -v linux.uml
    need open-iscsi command -v iscsid
    need multipath-tools command -v multipathd
    need sg3-utils command -v sg_persist
    need kmod command -v modprobe
    need busybox-static command -v busybox
    need iproute2 command -v ip
    need procps command -v ps
    need fio command -v fio
    need xfsprogs command -v mkfs.xfs
    need postgresql compgen -G "/usr/lib/postgresql/*/bin/initdb"
fi
if [[ $target == bench ]]; then
    need tgt command -v tgtd
    need tcmu-runner command -v tcmu-runner
    need dbus-daemon command -v dbus-daemon
fi

if ((${#missing[@]})); then
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        echo "installing Debian packages: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        quietly apt-get update
        quietly apt-get install -y --no-install-recommends "${missing[@]}"
    else
        echo "some packages are missing; what needs them is left out. To install them, type:"
        echo "    sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
fi
if ! python_serves; then
    echo "error: ${python} is no Python 3.11 or later with venv; install one, or name one: make $target PYTHON=..." >&2
    exit 1
fi

# What .venv was made of: when that changes, so does it. With liburing come, the io_uring extension is built.
made_of() {
    cat setup.cfg setup.py pyproject.toml backstores/engine/*.pyx
    "$python" --version
    command -v gcc || true
    ls /usr/include/liburing.h "$(include)/Python.h" 2>/dev/null || true
}
wanted=$(made_of | sha256sum | cut -d' ' -f1)
if [[ ! -e .venv/set-up || $(cat .venv/set-up) != "$wanted" ]]; then
    echo "setting up .venv"
    quietly "$python" -m venv .venv
    quietly .venv/bin/python -m pip install --disable-pip-version-check --editable '.[dev]'
    echo "$wanted" >.venv/set-up
fi
# The kernel that QEMU boots; without it, tests for two processors at once are skipped.
if [[ $target == test && ! -e build/guest-kernel ]] && command -v qemu-system-x86_64 busybox >/dev/null; then
    echo "fetching a kernel for guests"
    quietly .venv/bin/python -m tests.guest.boot_files || echo "tests that run under QEMU are left out"
fi
