"""Commands on folders as they are in life."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import on_two_machines

from anomaly_nb.core import folder_lock
from anomaly_nb.datasets import sample_path
from anomaly_nb.spectra import concatenate, load_sky, read_sdss, simulate_spectra, write_table
from anomaly_nb.spectra.commands import spectra_detect, spectra_train


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    spectra_train(simulate=150, baseline=True, out=folder)
    return folder


@pytest.fixture
def night(tmp_path):
    folder = tmp_path / "night"
    folder.mkdir()
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        for name in archive.namelist()[:3]:
            archive.extract(name, folder)
        content = archive.read(archive.namelist()[3])
    (folder / "cut.fits").write_bytes(content[:60_000])
    (folder / "page.fits").write_text("<html>503</html>")
    (folder / "empty.csv").write_text("")
    spectra = simulate_spectra(4, 3)
    spectra.z[1] = np.nan
    write_table(spectra, folder / "table.npz")
    return folder


def test_a_night_with_faults(model, night, tmp_path, caplog):
    assert spectra_detect(night, model=model, out=tmp_path / "out", figures=1) == 1
    assert "4 of 10 spectra and files could not be judged" in caplog.text and "cut.fits: " in caplog.text
    table, skipped = (pd.read_csv(tmp_path / "out" / name) for name in ("table.csv", "skipped.csv"))
    assert len(table) == 6 and len(skipped) == 4
    assert {"cut.fits", "page.fits", "empty.csv", "table.npz"} == set(skipped["file"])
    assert skipped.set_index("file").loc["table.npz", "id"] == simulate_spectra(4, 3).ids[1]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["spectra"] == 6
    assert len(list((tmp_path / "out" / "figures").iterdir())) == 1


def write_desi(folder, spectra, redshifts):
    "A coadd file with three arms on DESI's grid, and the redrock file beside it."
    from astropy.io import fits

    ids = np.arange(11, 11 + len(spectra))
    hdus = [fits.PrimaryHDU()]
    columns = [fits.Column("TARGETID", "K", array=ids)]
    columns += [fits.Column(f"TARGET_{axis}", "D", array=np.zeros(len(ids))) for axis in ("RA", "DEC")]
    hdus.append(fits.BinTableHDU.from_columns(columns, name="FIBERMAP"))
    for arm, start, stop in (("B", 3600, 5800), ("R", 5760, 7620), ("Z", 7520, 9824)):
        wavelength = np.arange(start, stop, 0.8)
        parts = {"WAVELENGTH": wavelength}
        for name in ("flux", "ivar"):
            rows = [np.interp(wavelength, spectra.wavelength, row, 0, 0) for row in getattr(spectra, name)]
            parts[name.upper()] = np.array(rows, ">f4")
        hdus += [fits.ImageHDU(values, name=f"{arm}_{name}") for name, values in parts.items()]
    folder.mkdir(parents=True)
    fits.HDUList(hdus).writeto(folder / "coadd-main-1.fits")
    if redshifts:
        columns = [fits.Column("TARGETID", "K", array=ids[::-1]), fits.Column("Z", "D", array=spectra.z[::-1])]
        table = fits.BinTableHDU.from_columns(columns, name="REDSHIFTS")
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(folder / "redrock-main-1.fits")


def write_csv(path, spectra, row, z):
    table = pd.DataFrame({name: getattr(spectra, name)[row] for name in ("flux", "ivar")})
    path.parent.mkdir(parents=True, exist_ok=True)
    table.assign(wavelength=spectra.wavelength, **({"z": z} if z else {})).to_csv(path, index=False)


def test_redshifts_of_every_format(model, tmp_path):
    spectra, found = simulate_spectra(3, 7), tmp_path / "found"
    write_desi(tmp_path / "night" / "desi", spectra, redshifts=True)
    write_csv(tmp_path / "night" / "one.csv", spectra, 0, spectra.z[0])
    write_csv(tmp_path / "night" / "two.CSV", spectra, 1, None)
    pd.DataFrame({"id": ["two"], "z": [spectra.z[1]]}).to_csv(tmp_path / "z.txt", index=False)
    spectra_detect(tmp_path / "night", model=model, out=found, figures=0, redshifts=str(tmp_path / "z.txt"))
    table = pd.read_csv(found / "table.csv", dtype={"id": str}).set_index(["file", "id"])["z"]
    expected = {("desi/coadd-main-1.fits", str(11 + row)): z for row, z in enumerate(spectra.z)}
    expected |= {("one.csv", "one"): spectra.z[0], ("two.CSV", "two"): spectra.z[1]}
    assert table.to_dict() == pytest.approx(expected)
    assert len(pd.read_csv(found / "skipped.csv")) == 0
    with pytest.raises(SystemExit, match=r"results of another job \(redshift table"):
        spectra_detect(tmp_path / "night", model=model, out=found, figures=0)
    spectra_detect(tmp_path / "night", model=model, out=tmp_path / "without", figures=0)
    assert pd.read_csv(tmp_path / "without" / "skipped.csv")["file"].tolist() == ["two.CSV"]


def test_redshifts_that_are_not_there(model, tmp_path):
    write_desi(tmp_path / "night", simulate_spectra(2, 7), redshifts=False)
    spectra_detect(tmp_path / "night", model=model, out=tmp_path / "out", figures=0)
    assert len(pd.read_csv(tmp_path / "out" / "skipped.csv")) == 2
    (tmp_path / "z.csv").write_text("name,z\n11,0.1\n")
    with pytest.raises(SystemExit, match=r"z\.csv.*columns id and z"):
        spectra_detect(tmp_path / "night", model=model, out=tmp_path / "other", redshifts=str(tmp_path / "z.csv"))


def test_equal_names_in_two_folders(model, tmp_path):
    spectra, out = simulate_spectra(2, 7), tmp_path / "out"
    spectra.flux[:, 2000:2400] *= 3  # both are anomalous
    for row, part in enumerate("ab"):
        write_csv(tmp_path / "night" / part / "same.csv", spectra, row, spectra.z[row])
        (tmp_path / "night" / part / "cut.fits").write_bytes(b"SIMPLE")
    spectra_detect(tmp_path / "night", model=model, out=out, figures=2)
    assert set(pd.read_csv(out / "table.csv")["file"]) == {"a/same.csv", "b/same.csv"}
    assert set(pd.read_csv(out / "skipped.csv")["file"]) == {"a/cut.fits", "b/cut.fits"}
    pictures = [path.relative_to(out / "figures").as_posix() for path in (out / "figures").rglob("*.png")]
    assert sorted(pictures) == ["a/same.csv.png", "b/same.csv.png"]


def test_files_that_would_fill_the_memory(model, tmp_path):
    night = tmp_path / "night"
    write_csv(night / "good.csv", simulate_spectra(1, 7), 0, 0.1)
    zeros = np.zeros((40, 1_000_000), np.float32)
    np.savez_compressed(night / "bomb.npz", flux=zeros, ivar=zeros, wavelength=zeros[0])
    (night / "bomb.fits.gz").write_bytes(gzip.compress(bytes(100_000_000)))
    spectra_detect(night, model=model, out=tmp_path / "out", figures=0)
    skipped = pd.read_csv(tmp_path / "out" / "skipped.csv").set_index("file")["reason"]
    assert set(skipped.index) == {"bomb.npz", "bomb.fits.gz"} and skipped.str.contains("would become").all()
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 1


def test_results_beside_the_spectra_are_no_spectra(model, night):
    for _ in range(2):
        spectra_detect(night, model=model, out=night / "found", figures=0)
        assert len(pd.read_csv(night / "found" / "table.csv")) == 6
        assert len(pd.read_csv(night / "found" / "skipped.csv")) == 4


def test_compressed_fits(model, night, tmp_path):
    first = sorted(night.glob("spec-*.fits"))[0]
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / f"{first.name}.gz").write_bytes(gzip.compress(first.read_bytes()))
    spectra_detect(tmp_path / "packed", model=model, out=tmp_path / "out", figures=0)
    spectra_detect(first, model=model, out=tmp_path / "plain", figures=0)
    packed, plain = (pd.read_csv(tmp_path / name / "table.csv")["score"] for name in ("out", "plain"))
    assert packed.tolist() == plain.tolist()


def test_the_most_anomalous_are_drawn(model, tmp_path):
    spectra = simulate_spectra(4, 7)
    for row, factor in enumerate((2, 12, 3, 6)):
        spectra.flux[row, 2000:2400] *= factor
    spectra.ids = np.array([f"../{row}" for row in range(4)])
    write_table(spectra, tmp_path / "night.npz")
    spectra_detect(tmp_path / "night.npz", model=model, out=tmp_path / "out", figures=2)
    best = pd.read_csv(tmp_path / "out" / "table.csv")["id"].head(2)
    drawn = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert len(best) == 2 and drawn == {f"night.npz-{name.replace('/', '_')}.png" for name in best}


def test_resume_gives_the_same(model, night, tmp_path):
    spectra_detect(night, model=model, out=tmp_path / "out", figures=0)
    whole = (tmp_path / "out" / "table.csv").read_text()
    results = sorted((tmp_path / "out" / "results").glob("*.json"))
    for path in results[::2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in results[1::2]}
    spectra_detect(night, model=model, out=tmp_path / "out", figures=0)
    assert (tmp_path / "out" / "table.csv").read_text() == whole
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_a_file_that_was_replaced_by_an_older_one_is_judged_again(model, tmp_path):
    night, out, spectra = tmp_path / "night.npz", tmp_path / "out", simulate_spectra(4, 7)
    spectra.flux[:, 2000:2400] *= 3  # all are anomalous
    for count in (4, 2):
        write_table(spectra[:count], night)
        os.utime(night, (count, count))
        spectra_detect(night, model=model, out=out, figures=4)
        assert len(pd.read_csv(out / "table.csv")) == len(list((out / "figures").iterdir())) == count
    drawn, result = next((out / "figures").iterdir()), next((out / "results").glob("*.json"))
    stamps = [path.stat().st_mtime_ns for path in (drawn, result)]
    spectra_detect(night, model=model, out=out, figures=4)
    assert stamps == [path.stat().st_mtime_ns for path in (drawn, result)]


def test_new_redshifts_beside_a_file_count(model, tmp_path):
    spectra = simulate_spectra(2, 7)
    for z in (0.1, 0.2):
        shutil.rmtree(tmp_path / "night", ignore_errors=True)
        spectra.z[:] = z
        write_desi(tmp_path / "night", spectra, redshifts=True)
        for path in (tmp_path / "night").iterdir():
            os.utime(path, (1, 1) if "coadd" in path.name else (10 * z, 10 * z))
        spectra_detect(tmp_path / "night", model=model, out=tmp_path / "out", figures=0)
        assert pd.read_csv(tmp_path / "out" / "table.csv")["z"].tolist() == [z, z]


def test_a_name_that_is_no_text(model, tmp_path):
    night, out = tmp_path / "night", tmp_path / "out"
    spectra = simulate_spectra(1, 7)
    spectra.flux[:, 2000:2400] *= 3
    for name in (b"\xff.csv", b"\xff.fits"):
        write_csv(night / os.fsdecode(name), spectra, 0, spectra.z[0])
    for _ in range(2):
        spectra_detect(night, model=model, out=out, figures=1)
        table, skipped = (pd.read_csv(out / name) for name in ("table.csv", "skipped.csv"))
        assert table[["file", "id"]].to_numpy().tolist() == [[r"\udcff.csv", r"\udcff"]]
        assert skipped["file"].tolist() == [r"\udcff.fits"] and r"\udcff.fits: not a FITS file" in skipped["reason"][0]
    assert [path.name for path in (out / "figures").iterdir()] == [r"\udcff.csv.png"]


def test_fluxes_that_cannot_be_right_are_skipped(model, tmp_path):
    spectra = simulate_spectra(3, 7)
    spectra.flux *= np.float32([[1], [0], [-1]])
    write_table(spectra, tmp_path / "night.npz")
    spectra_detect(tmp_path / "night.npz", model=model, out=tmp_path / "out", figures=0)
    table, skipped = (pd.read_csv(tmp_path / "out" / name) for name in ("table.csv", "skipped.csv"))
    assert table["id"].tolist() == [spectra.ids[0]] and skipped["id"].tolist() == spectra.ids[1:].tolist()
    assert skipped["reason"].str.contains("its flux is (?:zero throughout|negative as a whole)").all()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("new", {"out": Path("new")}, "new: lies in the folder of --out"),
        ("new", {"out": Path(".")}, "new: lies in the folder of --out"),
        ("new/night.npz", {"out": Path("new")}, "night.npz: lies in the folder of --out"),
        ("new", {"model": Path(".")}, "new: lies in the folder of --model"),
        (".", {"out": Path("new")}, "holds no spectra but files of --out and --model"),
    ],
)
def test_results_in_the_folder_of_the_spectra(model, tmp_path, monkeypatch, source, options, message):
    monkeypatch.chdir(tmp_path)
    if "model" in options:
        shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    write_table(simulate_spectra(1, 7), tmp_path / "new" / "night.npz")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match=message):
        spectra_detect(Path(source), **{"model": model, "out": Path("found")} | options)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_result_that_was_changed_is_refused(model, night, tmp_path):
    spectra_detect(night, model=model, out=tmp_path / "out", figures=0)
    table = (tmp_path / "out" / "table.csv").read_text()
    results = (tmp_path / "out" / "results").glob("*.json")
    changed = next(path for path in results if '"is_anomaly"' in path.read_text())
    kept = changed.read_text()
    changed.write_text(kept.replace('"is_anomaly"', '"is_anomali"', 1))  # of the same length
    with pytest.raises(SystemExit, match=f"{changed.name}: .* Delete it and run the job again"):
        spectra_detect(night, model=model, out=tmp_path / "out", figures=0)
    for text in ("[]", '{"records": [], "skipped": {}}'):  # what was cut off is judged again
        changed.write_text(text)
        spectra_detect(night, model=model, out=tmp_path / "out", figures=0)
        assert changed.read_text() == kept and (tmp_path / "out" / "table.csv").read_text() == table


def test_another_model_begins_anew(model, night, tmp_path):
    spectra_train(simulate=80, baseline=True, out=tmp_path / "other")
    options = {"out": tmp_path / "out", "figures": 1}
    spectra_detect(night, model=model, **options)
    with pytest.raises(SystemExit, match=r"results of another job \(model.*--restart"):
        spectra_detect(night, model=tmp_path / "other", **options)
    spectra_detect(night, model=tmp_path / "other", restart=True, **options)
    spectra_detect(night, model=tmp_path / "other", out=tmp_path / "fresh", figures=0)
    restarted, fresh = ((tmp_path / name / "table.csv").read_text() for name in ("out", "fresh"))
    assert restarted == fresh


def test_an_interrupt_while_libraries_are_loaded(monkeypatch, caplog):
    class Interrupts:
        def find_spec(self, name, *_):
            if name == "anomaly_nb.training":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "anomaly_nb.training", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        spectra_train()
    assert end.value.code == 130 and "Interrupted. Run the same command again." in caplog.text


def test_errors_are_one_line(model, tmp_path):
    script = tmp_path / "spectra_detect.py"
    script.write_text("from anomaly_nb.spectra.commands import spectra_detect\n\nspectra_detect.main()\n")
    arguments = ["nowhere", "--model", str(model), "--out", str(tmp_path / "out")]
    run = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.splitlines()[-1].startswith("error: nowhere: no .fits, .npz or .csv")
    assert "Traceback" not in run.stderr
    with pytest.raises(SystemExit, match="no trained detector here"):
        spectra_detect(tmp_path, model=tmp_path / "empty", out=tmp_path / "out")


def test_training_on_a_folder(tmp_path):
    write_table(simulate_spectra(80, 0), tmp_path / "normal" / "a.npz")
    spectra_train(tmp_path / "normal", out=tmp_path / "model", epochs=0)
    spectra_detect(tmp_path / "normal", model=tmp_path / "model", out=tmp_path / "out", figures=0)
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 80
    other = {"simulate": 80, "epochs": 4, "components": 6, "out": tmp_path / "model"}
    spectra_train(**other)
    with pytest.raises(SystemExit, match=r"another job .*--restart"):
        spectra_train(**other, seed=1)
    spectra_train(**other, seed=1, restart=True)
    with pytest.raises(SystemExit, match="too few"):
        write_table(simulate_spectra(5, 0), tmp_path / "few.npz")
        spectra_train(tmp_path / "few.npz", out=tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": -1, "baseline": True}, "seed is -1"),
        ({"contamination": float("nan")}, "contamination is nan"),
        ({"contamination": 5.0, "baseline": True}, "contamination is 5"),
        ({"components": 0}, "components is 0"),
        ({"simulate": -5}, "simulate is -5"),
    ],
)
def test_odd_options_are_told_before_there_is_work(tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        spectra_train(tmp_path / "nowhere", out=tmp_path / "model", **options)
    assert not list(tmp_path.iterdir())


def test_a_job_that_works_alone_keeps_its_folder_for_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    with folder_lock(tmp_path), pytest.raises(SystemExit, match="another run works here"):
        spectra_train(simulate=1, baseline=True, out=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("machines", [False, True])
def test_two_processes_train_together(tmp_path, machines):
    write_table(simulate_spectra(80, 0), tmp_path / "normal.npz")
    script = tmp_path / "spectra_train.py"
    script.write_text("from anomaly_nb.spectra.commands import spectra_train\n\nspectra_train.main()\n")
    words = ["--source", tmp_path / "normal.npz", "--device", "cpu", "--epochs", "4", "--out", tmp_path / "model"]
    if machines:
        told = on_two_machines([sys.executable, script, *words, "--nodes", "2"], tmp_path)
        assert ["kept in" in text for text in told] == [True, False]
    else:
        several = ["--devices", "2", "--strategy", "ddp"]
        run = subprocess.run([sys.executable, script, *words, *several], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stderr.count("kept in") == 1
    spectra_detect(tmp_path / "normal.npz", model=tmp_path / "model", out=tmp_path / "out", figures=0)
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 80


def test_a_processor_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match="expected one of auto, cpu"):
        spectra_train(simulate=80, out=tmp_path / "model", device="abacus")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("where", ["cores", "cluster"])
def test_cores_and_a_cluster_find_what_one_process_finds(model, night, tmp_path, where, request):
    spectra_detect(night, model=model, out=tmp_path / "one", figures=0)
    engine = {"workers": 2}
    if where == "cluster":
        engine = {"scheduler": request.getfixturevalue("cluster").address}
    spectra_detect(night, model=model, out=tmp_path / "many", figures=0, chunk_size=2, **engine)
    for name in ("table.csv", "regions.csv", "skipped.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "many" / name).read_text()


def test_flagged_pixels_are_masked():
    from astropy.io import fits

    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        name = archive.namelist()[0]
        content = archive.read(name)
    with fits.open(io.BytesIO(content)) as hdus:
        flags = hdus[1].data["AND_MASK"]
        flags[:] = 0
        flags[100:103] = [1 << 23, 1 << 2, 1 << 28]  # bright sky, a weak flat field, the red monster
        hdus[1].data["IVAR"][:] = 1
        hdus.writeto(changed := io.BytesIO())
    assert np.flatnonzero(read_sdss({"a": changed.getvalue()}).mask[0]).tolist() == [100, 102]


def test_files_that_are_judged_together_have_the_results_of_each_alone(model, night, tmp_path):
    "Two files hold an object of one name, one has a grid of its own, and some are damaged."
    name = min(path.name for path in night.glob("spec*.fits"))
    (night / "more").mkdir()
    shutil.copyfile(night / name, night / "more" / name)
    few = simulate_spectra(2, 5)
    few.wavelength = few.wavelength * 1.00007
    write_table(few, night / "elsewhere.npz")
    for size in (1, 3, 64):
        spectra_detect(night, model=model, out=tmp_path / str(size), figures=0, chunk_size=size)
    for table in ("table.csv", "regions.csv", "skipped.csv", "summary.json"):
        assert len({(tmp_path / str(size) / table).read_bytes() for size in (1, 3, 64)}) == 1
    ids = pd.read_csv(tmp_path / "64" / "table.csv")["id"].tolist()
    assert len(ids) == 9 and len(set(ids)) < len(ids)


def test_sky_fibres_have_no_rank(model, tmp_path):
    sky = load_sky()[:12]
    sky.flags = np.repeat(["sky fibre", ""], 6)
    write_table(concatenate([simulate_spectra(30, 3), sky]), tmp_path / "list.npz")
    spectra_detect(tmp_path / "list.npz", model=model, out=tmp_path / "out", figures=0)
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table["judged"].tolist() == [True] * 30 + [False] * 12
    assert set(table["id"][30:]) == set(sky.ids) and table["score"][30:].isna().all()
    assert (table["reason"] == "sky fibre").sum() == 6 and table["reason"].str.contains("signal-to-noise").sum() == 6
    judged = table[table["judged"]]
    assert judged["p_value"].min() > 0 and (judged["q_value"] >= judged["p_value"] - 1e-9).all()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["not judged"] == 12
    spectra_detect(tmp_path / "list.npz", model=model, out=tmp_path / "all", figures=0, keep="flags,signal,redshift")
    assert pd.read_csv(tmp_path / "all" / "table.csv")["judged"].sum() > 30
    with pytest.raises(SystemExit, match="no reason not to judge"):
        spectra_detect(tmp_path / "list.npz", model=model, out=tmp_path / "all", keep="sky")
