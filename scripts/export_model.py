"""Write a trained network as ONNX, TorchScript or torch.export: python scripts/export_model.py RUN format=onnx"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("export_model"))
