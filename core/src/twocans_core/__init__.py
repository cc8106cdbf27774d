"""What server and client must agree on, measure alike or emit alike."""

__all__ = ["__version__"]

__version__ = "0.1.0"
