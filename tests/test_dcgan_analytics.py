"""Monitoring and analytics: readings, the documented figures, the summary, and runs with something missing."""

import json
import threading
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anomaly_nb.core import DataError
from anomaly_nb.dcgan.analytics import (
    Reading,
    ResourceMonitor,
    read_run,
    resource_alerts,
    resource_summary,
    write_plots,
    write_resources,
    write_summary,
)

DOCUMENT = {"epoch_loss_curves", "gradient_norms", "generated_samples_grid", "convergence_analysis"}
FURTHER = {
    "resource_usage",
    "detailed_iteration_analysis",
    "discriminator_analysis",
    "image_quality_metrics",
    "sample_evolution",
    "training_stability",
}


@pytest.fixture
def run(tmp_path):
    "A complete output folder with known numbers."
    folder, epochs, rng = tmp_path / "output_dcgan", np.arange(1, 8), np.random.default_rng(0)
    (folder / "epochs_statistics").mkdir(parents=True)
    table = pd.DataFrame({"epoch": epochs})
    for name in ("generator_loss", "discriminator_loss"):
        for kind in ("avg", "min", "max"):
            table[f"{kind}_{name}"] = rng.random(7) + (name == "generator_loss")
    for name in ("avg_grad_norm_g", "avg_grad_norm_d", "max_grad_norm_g", "max_grad_norm_d", "learning_rate_g"):
        table[name] = rng.random(7)
    for name in ("avg_d_real_score", "avg_d_fake_score", "d_real_accuracy", "d_fake_accuracy", "ram_usage"):
        table[name] = rng.random(7)
    table["avg_generator_loss"] = epochs / 7
    table = table.assign(convergence_indicator=0.25, training_stability_score=0.5, epoch_duration_minutes=2.0)
    table.to_csv(folder / "epochs_statistics" / "epoch_statistics.csv", index=False)
    pd.DataFrame({"epoch": [2, 4, 6], "quality": [3.0, 1.0, 2.0], "fid_score": [30.0, None, 20.0]}).to_csv(
        folder / "epochs_statistics" / "checkpoint_metrics.csv", index=False
    )
    for epoch in (10, 9):
        place = folder / "single_epochs_statistics" / f"epoch_{epoch}"
        place.mkdir(parents=True)
        rows = {"iteration": [epoch * 10, epoch * 10 + 5], "generator_loss": [1.0, 2.0], "discriminator_loss": 0.5}
        pd.DataFrame(rows).to_csv(place / f"epoch_{epoch}_iterations.csv", index=False)
    (folder / "samples").mkdir()
    for epoch in (1, 5):
        np.save(folder / "samples" / f"epoch_{epoch:03d}.npy", rng.random((9, 1, 16, 16)).astype(np.float32))
    return folder


def test_all_documented_figures_are_written(run):
    files = write_plots(run, dpi=30)
    assert {file.name for file in files} == {f"{name}.png" for name in DOCUMENT | FURTHER}
    assert {file.parent.name for file in files} == {"plots"}
    for file in files:
        with Image.open(file) as image:
            assert np.ptp(np.asarray(image.convert("L"))) > 100
    assert not plt.get_fignums()


def test_the_default_resolution_is_the_documented_one(run):
    with Image.open(write_plots(run)[0]) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_iterations_come_in_order_and_what_is_missing_is_left_out(run):
    assert read_run(run).iterations["iteration"].tolist() == [90, 95, 100, 105]
    for path in (run / "samples").glob("*.npy"):
        path.unlink()
    (run / "epochs_statistics" / "checkpoint_metrics.csv").unlink()
    names = {file.stem for file in write_plots(run, dpi=20)}
    assert names == (DOCUMENT | FURTHER) - {"sample_evolution", "image_quality_metrics", "generated_samples_grid"}
    summary = json.loads(write_summary(run).read_text())
    assert summary["checkpoint_recommendations"] == {"epoch": None, "why": "no quality was measured"}


def test_the_summary_equals_hand_computed_numbers(run):
    summary = json.loads(write_summary(run).read_text())
    assert {"training_summary", "loss_analysis", "convergence_analysis", "training_efficiency"} <= set(summary)
    assert {"resource_usage", "model_performance", "checkpoint_recommendations"} <= set(summary)
    assert summary["training_summary"] == {"epochs": 7, "minutes": 14.0, "samples": 2}
    generator = summary["loss_analysis"]["generator"]
    assert generator["first"] == pytest.approx(1 / 7) and generator["last"] == 1.0
    assert generator["recent_slope"] == pytest.approx(1 / 7)
    assert summary["model_performance"]["score"] == pytest.approx(0.25 + 0.15 + 0.15)
    assert summary["checkpoint_recommendations"]["epoch"] == 4
    assert summary["resource_usage"]["gpu_memory_used"] is None


def test_a_diverged_run_is_summed_up_without_nan(run):
    path = run / "epochs_statistics" / "epoch_statistics.csv"
    table = pd.read_csv(path)
    table.loc[5:, ["avg_generator_loss", "avg_discriminator_loss", "convergence_indicator"]] = [np.nan, np.inf, np.nan]
    table.to_csv(path, index=False)
    text = write_summary(run).read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["loss_analysis"]["generator"]["epochs_not_finite"] == 2
    assert write_plots(run, dpi=20)


@pytest.mark.parametrize("content", ["", "epoch\n", "epoch,avg_generator_loss,avg_discriminator_loss\n", "epoch\n1\n"])
def test_broken_epoch_tables(run, content):
    (run / "epochs_statistics" / "epoch_statistics.csv").write_text(content)
    for function in (read_run, write_plots, write_summary):
        with pytest.raises(DataError, match=r"epoch_statistics\.csv"):
            function(run)
    assert not (run / "training_summary.json").exists() and not (run / "plots").exists()


def test_text_in_a_loss_column_and_missing_folders(run, tmp_path):
    path = run / "epochs_statistics" / "epoch_statistics.csv"
    path.write_text("epoch,avg_generator_loss,avg_discriminator_loss\n1,high,0.5\n")
    with pytest.raises(DataError, match="no numbers in avg_generator_loss"):
        read_run(run)
    with pytest.raises(DataError, match=r"epoch_statistics\.csv: no such file"):
        read_run(tmp_path / "none")


def test_a_damaged_sample_file_is_named(run):
    (run / "samples" / "epoch_005.npy").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"epoch_005\.npy"):
        write_plots(run, dpi=20)


def test_the_monitor_reads_while_it_runs_and_stops():
    threads = threading.active_count()
    with ResourceMonitor(interval=0.15) as monitor:
        deadline = time.monotonic() + 20
        while len(monitor.table()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    count = len(monitor.table())
    assert count >= 3 and threading.active_count() == threads
    time.sleep(0.4)
    assert len(monitor.table()) == count


def test_the_monitor_sees_memory_and_keeps_no_more_than_its_history():
    monitor = ResourceMonitor(history=2)
    before = monitor.read().process_mb
    block = np.ones(30_000_000)
    time.sleep(0.11)
    assert monitor.read().process_mb - before > 0.8 * block.nbytes / 1e6
    time.sleep(0.11)
    monitor.read()
    assert len(monitor.table()) == 2
    assert monitor.read() is monitor.read()  # a second look within a tenth of a second costs nothing


def test_a_row_is_the_machine_now():
    monitor = ResourceMonitor()
    row = monitor.row()
    assert list(row) == ["gpu_memory_used", "gpu_utilization", "cpu_usage", "ram_usage", "process_mb"]
    assert row["ram_usage"] == monitor.table()["ram_usage"].iloc[-1] > 0
    json.dumps(row, allow_nan=False)


def test_what_is_beyond_its_limit_is_said_once(monkeypatch, caplog):
    class Memory:
        percent = 90.0

    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory)
    monitor = ResourceMonitor()
    for percent in (80.0, 90.0, 91.0, 99.0, 90.0, 98.0):
        Memory.percent = percent
        monitor.readings.clear()
        monitor.read()
    said = [message for message in caplog.messages if message.startswith("ram_usage")]
    assert said == ["ram_usage is 90, which is high.", "ram_usage is 99, which is dangerously high."]


def test_alerts_and_bottlenecks():
    calm = Reading(1.0, 50.0, 50.0, 100.0, 50.0)
    assert resource_alerts(calm) == {}
    hot = calm._replace(gpu_temperature=95.0, gpu_memory_percent=91.0, disk_usage=99.0)
    expected = {"gpu_temperature": "critical", "gpu_memory_percent": "warning", "disk_usage": "critical"}
    assert resource_alerts(hot) == expected
    summary = resource_summary(pd.DataFrame([calm, calm._replace(ram_usage=99.0, cpu_usage=99.0, seconds=9.0)]))
    assert summary["bottlenecks"] == [] and summary["maximum"]["cpu_usage"] == 99 and summary["seconds"] == 9
    assert resource_summary(pd.DataFrame([hot]))["bottlenecks"] == ["gpu_memory_percent"]


def test_resources_as_a_file(tmp_path):
    monitor = ResourceMonitor()
    monitor.read()
    write_resources(monitor.table(), tmp_path / "resource_monitoring.json")
    assert json.loads((tmp_path / "resource_monitoring.json").read_text())["readings"] == 1
    write_resources(ResourceMonitor().table(), tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text())["bottlenecks"] == []
