"""Speed of training steps and of losses: mixed precision beside plain float32, all loss terms beside torchmetrics."""

from pathlib import Path

import pandas as pd
import torch
from timing import machine, median_seconds
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from anomaly_nb.fmnist import CAE, FlexibleLoss, image_tensor, load_subset
from anomaly_nb.fmnist.losses import TERMS

RESULTS = Path(__file__).parent / "results"


def steps(batch_size: int = 1024) -> dict[str, float]:
    "Training images per second of the CAE (width 32), plain and as `train_model` does it."
    images, criterion, functions = image_tensor(load_subset("train")[0])[:batch_size], FlexibleLoss("mse"), {}
    for name, mixed in {"float32": False, "bf16, channels last": True}.items():
        model = CAE(width=32).train()
        if mixed:
            model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), 4e-3)

        def step(model: CAE = model, optimizer: torch.optim.AdamW = optimizer, mixed: bool = mixed) -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                value = model.loss(images, criterion)
            value.backward()
            optimizer.step()

        functions[f"CAE step, {name}"] = step
    return {name: batch_size / seconds for name, seconds in median_seconds(functions, repeats=7).items()}


def losses(batch_size: int = 256) -> dict[str, float]:
    "Images per second, forward and backward."
    target = image_tensor(load_subset("train")[0])[:batch_size]
    output = (target + 0.1 * torch.randn(target.shape)).clamp(0, 1).requires_grad_()
    everything, options = FlexibleLoss("+".join(TERMS)), {"data_range": 1.0}
    scales = options | {"kernel_size": 7, "betas": (0.5, 0.3, 0.2)}
    functions = {
        "FlexibleLoss, all terms": lambda: everything(output, target).backward(),
        "torchmetrics SSIM": lambda: structural_similarity_index_measure(output, target, **options).backward(),
        "torchmetrics MS-SSIM": lambda: multiscale_structural_similarity_index_measure(
            output, target, **scales
        ).backward(),
    }
    return {name: batch_size / seconds for name, seconds in median_seconds(functions, repeats=5).items()}


def main() -> None:
    torch.manual_seed(0)
    table = pd.DataFrame({"images per second": steps() | losses()}).rename_axis("what")
    first = table.index.map(lambda name: "CAE step, float32" if "CAE" in name else "torchmetrics MS-SSIM")
    table["times its reference"] = table["images per second"] / table["images per second"].loc[first].to_numpy()
    table.round(2).to_csv(RESULTS / "fmnist_speed.csv")
    print(f"{machine()}, {torch.get_num_threads()} threads\n{table.round(2).to_string()}")


if __name__ == "__main__":
    main()
