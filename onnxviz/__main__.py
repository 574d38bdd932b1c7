"""``python -m onnxviz`` is the command ``onnxviz``."""

from onnxviz.cli import main

if __name__ == "__main__":
    main()
