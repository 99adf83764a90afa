import json

import pytest


@pytest.fixture
def write_run(tmp_path):
    """Writes a run folder; keyword arguments are arguments of the command line."""

    def write(name, accuracies=(0.5, 0.75), losses=None, record=True, **arguments):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        losses = [1 - a for a in accuracies] if losses is None else losses
        log = [
            {
                "epoch": i,
                "iteration": 10 * i,
                "main/loss": 2 / i,
                "validation/main/accuracy": accuracy,
                "validation/main/loss": loss,
                "elapsed_time": 1.5 * i,
            }
            for i, (accuracy, loss) in enumerate(
                zip(accuracies, losses, strict=True), start=1
            )
        ]
        (folder / "log").write_text(json.dumps(log))
        if record:
            arguments = {"model": "cnn", "out": str(folder), **arguments}
            (folder / "run.json").write_text(json.dumps({"arguments": arguments}))
        return folder

    return write
