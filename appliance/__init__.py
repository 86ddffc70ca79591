"""The control plane: it decides which volumes exist, who serves them and who may see them."""

__version__ = "0.1.0"
