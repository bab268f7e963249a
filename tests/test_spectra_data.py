"""Spectra, readers and preparation from outside: alignment, damaged files, references."""

import io
import zipfile
from typing import Any, ClassVar

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_nb.core import DataError
from anomaly_nb.datasets import sample_path
from anomaly_nb.spectra import (
    Spectra,
    concatenate,
    faults,
    fetch_sparcl,
    from_specutils,
    inject_anomalies,
    load_sdss_objects,
    load_sky,
    read_desi,
    read_sdss,
    read_table,
    simulate_spectra,
    to_rest_frame,
    to_specutils,
    write_table,
)
from anomaly_nb.spectra.readers import coadd_arms, from_records

NAME = "spec-1678-53433-0001"


@pytest.fixture(scope="module")
def content() -> bytes:
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        return archive.read(f"{NAME}.fits")


def numbered(n: int) -> Spectra:
    "Spectrum i has the flux i everywhere, the name s<i>, and so on."
    rows = np.arange(n, dtype=float)
    flux = np.tile(rows[:, None], (1, 5))
    names = [f"s{i}" for i in range(n)]
    return Spectra(flux, flux + 1, np.arange(4000, 4005), z=rows / 100, ids=names, ra=rows, dec=-rows)


@given(st.data(), st.integers(2, 12))
@settings(max_examples=50, deadline=None)
def test_everything_moves_together(data, n):
    order = data.draw(st.permutations(range(n)))
    spectra = numbered(n)[np.array(order)]
    again = concatenate([spectra[: n // 2], spectra[n // 2 :]]).select([f"s{i}" for i in range(n)])
    for one, rows in ((spectra, order), (again, range(n))):
        for row, i in enumerate(rows):
            assert one.flux[row, 0] == i and one.ids[row] == f"s{i}"
            assert one.z[row] == i / 100 and one.ra[row] == i and one.dec[row] == -i


def test_bad_pixels_have_no_weight():
    spectra = Spectra([[1, np.nan, 3, 4]], [[1, 1, np.inf, -1]], [1, 2, 3, 4], mask=[[True, False, False, False]])
    assert spectra.mask.all() and not spectra.flux.any() and not spectra.ivar.any()


def test_input_is_not_changed():
    flux = np.array([[1.0, np.nan]], dtype=np.float32)
    Spectra(flux, [[1, 1]], [1, 2])
    assert np.isnan(flux[0, 1])


def test_specutils_there_and_back():
    spectra = simulate_spectra(3, 0)
    again = from_specutils(to_specutils(spectra))
    for name in ("flux", "mask", "z", "ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(spectra, name))
    np.testing.assert_allclose(again.ivar, spectra.ivar, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "z"),
    [
        ({"redshift": 0.1}, [0.1, 0.1]),
        ({"redshift": [0.1, 0.2]}, [0.1, 0.2]),
        ({"redshift": [0.0, 0.2]}, [0.0, 0.2]),
        ({}, [np.nan, np.nan]),
        ({"redshift": 0.1, "meta": {"z": [0.3, 0.4]}}, [0.3, 0.4]),
    ],
)
def test_redshift_from_specutils(options, z):
    from astropy import units
    from astropy.nddata import InverseVariance
    from specutils import Spectrum

    axis, flux = np.arange(5000, 5005) * units.AA, np.ones((2, 5)) * units.Jy
    errors = InverseVariance(np.ones((2, 5)) / units.Jy**2)
    spectrum = Spectrum(flux=flux, spectral_axis=axis, spectral_axis_index=1, uncertainty=errors, **options)
    np.testing.assert_allclose(from_specutils(spectrum).z, z)


def test_redshift_of_a_single_spectrum_from_specutils():
    from astropy import units
    from astropy.nddata import InverseVariance
    from specutils import Spectrum

    errors = InverseVariance(np.ones(5) / units.Jy**2)
    axis = np.arange(5000, 5005) * units.AA
    spectrum = Spectrum(flux=np.ones(5) * units.Jy, spectral_axis=axis, uncertainty=errors, redshift=0.1)
    np.testing.assert_allclose(from_specutils(spectrum).z, [0.1])


def from_outside(axis, flux):
    from astropy import units
    from astropy.nddata import InverseVariance
    from specutils import Spectrum

    errors = InverseVariance(flux / units.Jy**2)
    return Spectrum(flux=flux * units.Jy, spectral_axis=axis, uncertainty=errors, mask=flux == 1)


@pytest.mark.parametrize(("unit", "ends"), [("AA", (6000, 4000)), ("GHz", (5e5, 7e5)), ("eV", (2, 3))])
def test_falling_wavelengths_are_turned_round(unit, ends):
    from astropy import units

    axis = np.linspace(*ends, 5) * units.Unit(unit)
    rows = np.tile(np.arange(1.0, 6.0), (2, 1))
    spectra = from_specutils(from_outside(axis, rows))
    np.testing.assert_allclose(spectra.wavelength, axis.to_value("AA", units.spectral())[::-1])
    np.testing.assert_array_equal(spectra.flux, [[5, 4, 3, 2, 0]] * 2)
    np.testing.assert_array_equal(spectra.ivar, [[5, 4, 3, 2, 0]] * 2)
    assert from_specutils(from_outside(axis, rows[0])).flux.tolist() == [[5, 4, 3, 2, 0]]


@pytest.mark.parametrize(("unit", "shape"), [("AA", (2, 3, 5)), ("pix", (5,)), ("km/s", (5,))])
def test_cubes_and_other_axes_are_refused(unit, shape):
    from astropy import units

    with pytest.raises(DataError, match="The specutils spectrum"):
        from_specutils(from_outside(np.arange(4000, 4005) * units.Unit(unit), np.ones(shape)))


def test_empty_spectra():
    assert repr(numbered(3)[:0]) == "Spectra(0 spectra, 5 pixels, 4000-4004 Å, 0.0% masked)"
    assert "0.0% masked" in numbered(3)[:0]._repr_html_()
    with pytest.raises(DataError, match="wavelength: there are no pixels"):
        Spectra([], [], [])


@pytest.mark.parametrize("other", [np.ones((3, 5)), "night.npz", None])
def test_what_is_no_spectra(other):
    for judge in (faults, to_rest_frame):
        with pytest.raises(DataError, match=r"not (ndarray|str|NoneType)\. Make them with Spectra\(flux, ivar"):
            judge(other)


def test_a_folder_without_files(tmp_path, content):
    for files in ([], tmp_path.glob("*.fits"), {}):
        with pytest.raises(DataError, match="There are no files to read"):
            read_sdss(files)
    (tmp_path / f"{NAME}.fits").write_bytes(content)
    assert read_sdss(tmp_path.glob("*.fits")).ids.tolist() == [NAME]


@pytest.mark.parametrize("size", [0, 100, 2880, 20_000, 90_000, 120_000])
def test_truncated_files_are_named(content, size):
    with pytest.raises(DataError, match="night-3"):
        read_sdss({"night-3": content[:size]})


def change(content: bytes, edit) -> bytes:
    with fits.open(io.BytesIO(content)) as hdus:
        edited = fits.HDUList([hdu.copy() for hdu in hdus[:3]])
        edited = edit(edited) or edited
        file = io.BytesIO()
        edited.writeto(file)
        return file.getvalue()


def without_column(name):
    def edit(hdus):
        columns = [column for column in hdus[1].columns if column.name != name]
        hdus[1] = fits.BinTableHDU.from_columns(columns, name="COADD")

    return edit


def test_missing_table_and_column(content):
    with pytest.raises(DataError, match=r"one: found 1 of the two tables"):
        read_sdss({"one": change(content, lambda hdus: hdus[:2])})
    for column in ("flux", "ivar", "loglam"):
        with pytest.raises(DataError, match=f"(?i)two: the column {column} is missing"):
            read_sdss({"two": change(content, without_column(column))})


def test_order_of_files_is_kept(tmp_path):
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        archive.extractall(tmp_path)
    paths = sorted(tmp_path.glob("*.fits"))
    forward, backward = read_sdss(paths), read_sdss(paths[::-1])
    np.testing.assert_array_equal(forward.z, backward.z[::-1])
    np.testing.assert_array_equal(forward.flux, backward.flux[::-1])


def test_reader_agrees_with_specutils(content, tmp_path):
    from specutils import Spectrum

    path = tmp_path / f"{NAME}.fits"
    path.write_bytes(content)
    theirs, ours = Spectrum.read(path, format="SDSS-III/IV spec"), read_sdss(path)
    good = ~ours.mask[0]
    np.testing.assert_allclose(ours.flux[0][good], theirs.flux.value[good], rtol=1e-6)
    np.testing.assert_allclose(ours.wavelength, theirs.spectral_axis.to_value("AA"), rtol=1e-6)


def test_mixed_grids_are_refused():
    with pytest.raises(DataError, match="s0: its wavelength grid differs"):
        concatenate([simulate_spectra(1, 0), numbered(2)])


def test_coadd_is_the_weighted_mean():
    grid, flux, ivar = coadd_arms([([10, 10.8], [[1, 2]], [[1, 1]]), ([10.8, 11.6], [[4, 5]], [[3, 0]])])
    np.testing.assert_allclose(grid, [10, 10.8, 11.6])
    np.testing.assert_allclose(flux, [[1, 3.5, 0]])
    np.testing.assert_allclose(ivar, [[1, 4, 0]])


def test_desi_without_arms(tmp_path):
    path = tmp_path / "coadd-7.fits"
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)
    with pytest.raises(DataError, match=r"coadd-7.fits"):
        read_desi(path)
    path.write_text("not a FITS file")
    with pytest.raises(DataError, match=r"coadd-7.fits"):
        read_desi(path)


def test_tables(tmp_path):
    spectra = simulate_spectra(3, 0)
    write_table(spectra, tmp_path / "a.npz")
    np.testing.assert_array_equal(read_table(tmp_path / "a.npz").ivar, spectra.ivar)
    np.savez(tmp_path / "b.npz", flux=spectra.flux, wavelength=spectra.wavelength)
    with pytest.raises(DataError, match=r"b.npz: .*ivar.* is missing"):
        read_table(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"c.npz"):
        read_table(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", flux=np.array([{"code": 1}], dtype=object), ivar=[1], wavelength=[1])
    with pytest.raises(DataError, match=r"d.npz"):
        read_table(tmp_path / "d.npz")


def record(name, grid=(5000, 5001)):
    return {"targetid": name, "flux": [name, 1], "ivar": [1, 1], "wavelength": list(grid), "redshift": name / 100}


def test_records_in_any_order_belong_to_their_ids():
    spectra, missing = from_records([record(3), record(1)], ["1", "2", "3"])
    assert spectra.ids.tolist() == ["1", "3"] and spectra.flux[:, 0].tolist() == [1, 3] and missing == ["2"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([41, 42], r"was found: 41, 42\. Check ids"),
        (range(600), r"was found: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 590 more\."),
        ([], r"was found: none was given\."),
    ],
)
def test_sparcl_with_none_of_the_ids(ids, message):
    class Empty:
        records: ClassVar[list[dict[str, Any]]] = []

        def retrieve_by_specid(self, **_):
            return self

    with pytest.raises(DataError, match=message):
        fetch_sparcl(ids, client=Empty())


def test_sparcl_down():
    class Down:
        def retrieve_by_specid(self, **_):
            raise TimeoutError("read timed out")

    with pytest.raises(DataError, match="read timed out"):
        fetch_sparcl([1], client=Down())


def test_sparcl_is_asked_for_every_observation():
    class Archive:
        "Answers as SPARCL does: more than one record of a target, in any order, and always with its `specid`."

        asked: ClassVar[list[dict[str, Any]]] = []

        def retrieve_by_specid(self, specid_list, *, include="DEFAULT", dataset_list=None, limit=500):
            assert isinstance(specid_list, list) and all(type(one) is int for one in specid_list)
            self.asked.append({"limit": limit, "include": list(include)})
            include.append("sparcl_id")  # the client does this to its argument
            common = {"ivar": [1, 1], "wavelength": [5000, 5001], "redshift": 0.1}
            self.records = [
                {"specid": one, "flux": [one, primary], "specprimary": primary} | common
                for one in reversed(specid_list)
                for primary in (False, True)
            ][:limit]
            return self

    spectra, missing = fetch_sparcl(range(600), client=Archive())
    assert spectra.ids.tolist() == [str(one) for one in range(600)] and not missing
    np.testing.assert_array_equal(spectra.flux[:, 1], 1)
    assert len(Archive.asked) == 2 and all(each["limit"] == 24_000 for each in Archive.asked)
    assert all("sparcl_id" not in each["include"] for each in Archive.asked)


@pytest.mark.parametrize("z", [np.nan, np.inf, -1.0, 99.0])
def test_absurd_redshifts_are_named(z):
    spectra = simulate_spectra(3, 0)
    spectra.z[1] = z
    assert list(faults(spectra)) == [spectra.ids[1]]
    with pytest.raises(DataError, match=str(spectra.ids[1])):
        to_rest_frame(spectra)


def test_rest_frame_only_shifts():
    spectra = simulate_spectra(5, 0)
    rest = to_rest_frame(spectra)
    for row in range(5):
        kept = np.flatnonzero(rest.ivar[row])
        start = np.flatnonzero(np.isclose(spectra.flux[row] / rest.scale[row], rest.flux[row, kept[0]], rtol=1e-6))
        assert any(
            np.allclose(
                spectra.flux[row, s : s + len(rest.flux[row, kept[0] : kept[-1] + 1])] / rest.scale[row],
                rest.flux[row, kept[0] : kept[-1] + 1],
                rtol=1e-5,
                atol=1e-7,
            )
            for s in start
        )


@given(st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_units_do_not_matter(factor):
    spectra = simulate_spectra(2, 0)
    scaled = Spectra(spectra.flux * factor, spectra.ivar / factor**2, spectra.wavelength, z=spectra.z)
    np.testing.assert_allclose(to_rest_frame(scaled).flux, to_rest_frame(spectra).flux, rtol=1e-3, atol=1e-5)


def test_one_hot_pixel_does_not_move_the_scale():
    spectra = simulate_spectra(2, 0)
    before = to_rest_frame(spectra).scale
    spectra.flux[:, 2000] = 1e6
    np.testing.assert_allclose(to_rest_frame(spectra).scale, before, rtol=5e-3)


def test_bundled_objects():
    objects = load_sdss_objects()
    assert len(objects) == 22 and not faults(objects)


@pytest.mark.parametrize(("flux", "ivar", "name"), [(3e-17, 4e38, "ivar"), (1e39, 1e-3, "flux"), (1e-46, 1e30, "flux")])
def test_numbers_beyond_single_precision_are_refused(flux, ivar, name):
    values = np.full((2, 3), [[1.0], [flux]]), np.full((2, 3), [[1.0], [ivar]])
    with pytest.raises(DataError, match=f"{name}: spectrum 'b' reaches .* multiply flux by a factor, divide ivar"):
        Spectra(*values, [1, 2, 3], ids=["a", "b"])
    assert Spectra(*values, [1, 2, 3], mask=[[False] * 3, [True] * 3]).mask.mean() == 0.5  # nobody looks there
    zeros = Spectra(np.zeros((1, 3)), np.ones((1, 3)), [1, 2, 3])
    assert not zeros.mask.any()


@pytest.mark.parametrize(
    ("factor", "reason"), [(0, "its flux is zero throughout"), (-1, "its flux is negative as a whole")]
)
def test_flux_that_cannot_be_right_is_named(factor, reason):
    spectra = simulate_spectra(3, 0)
    wrong = Spectra(spectra.flux * [[1], [factor], [1]], spectra.ivar, spectra.wavelength, z=spectra.z)
    assert {name: text.startswith(reason) for name, text in faults(wrong).items()} == {wrong.ids[1]: True}
    with pytest.raises(DataError, match=f"{wrong.ids[1]}: {reason}.* Leave them out"):
        to_rest_frame(wrong)


def test_odd_and_faint_spectra_can_be_judged():
    some = {family: simulate_spectra(32, 0, family=family, snr=(6, 6)) for family in ("observed", "stellar")}
    odd = [inject_anomalies(spectra, seed=1)[0] for spectra in some.values()]
    hot = simulate_spectra(3, 0)
    hot.flux[:, 2000] = -1e6
    for spectra in (*some.values(), *odd, hot, load_sky()):
        assert not faults(spectra)


def test_unknown_numbers_are_not_shared():
    spectra = Spectra(np.ones((2, 3)), np.ones((2, 3)), [5000.0, 5001.0, 5002.0])
    spectra.z[:] = 0.3
    assert np.isnan(spectra.ra).all() and np.isnan(spectra.dec).all()


def test_one_bad_row_does_not_lose_a_desi_file(tmp_path):
    ids, wavelength = np.array([11, 12, -5, -5, 13]), 3600 + 0.8 * np.arange(2751)
    kinds = ["TGT", "SKY", "", "", "TGT"]
    columns = [fits.Column("TARGETID", "K", array=ids), fits.Column("OBJTYPE", "3A", array=kinds)]
    columns += [fits.Column(name, "D", array=np.zeros(5)) for name in ("TARGET_RA", "TARGET_DEC")]
    columns += [fits.Column("COADD_FIBERSTATUS", "J", array=np.array([0, 0, 0, 0, 8]))]
    images = {"WAVELENGTH": wavelength, "FLUX": np.ones((5, 2751), "f4"), "IVAR": np.ones((5, 2751), "f4")}
    hdus = [fits.ImageHDU(values, name=f"B_{name}") for name, values in images.items()]
    table = fits.BinTableHDU.from_columns(columns, name="FIBERMAP")
    fits.HDUList([fits.PrimaryHDU(), table, *hdus]).writeto(tmp_path / "coadd-x.fits")
    spectra = read_desi(tmp_path / "coadd-x.fits")
    assert spectra.ids.tolist() == ["11", "12", "-5", "-5-2", "13"]
    assert [flag[:9] for flag in spectra.flags] == ["", "sky fibre", "no target", "no target", "the fibre"]
