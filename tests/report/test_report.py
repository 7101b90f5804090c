"""The report: whole, self-contained, every number quoted, what is missing said; opened in a browser."""

import hashlib
import html.parser
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import tyro
import xarray as xr

from bayes_icl import atlas, attribute, calibrate, collect, fit, patch, report
from bayes_icl.core.errors import StatedError
from bayes_icl.core.provenance import command_of
from bayes_icl.report import command as report_command
from bayes_icl.writing.stage import StageOutputs

COLLECT = collect.CollectSettings(
    model="tiny", tasks=("copy", "random_labels"), n_shots=12, n_seqs=10, out=Path("data/curves/t.nc")
)
FIT = fit.FitSettings(
    engine="fast", workers=1, pool=True, hypotheses=("constant", "additive", "power", "pooling"), n_min=(1, 2)
)
ATTRIBUTE = attribute.AttributeSettings(tasks=("copy",), workers=1, placebos=2)
ATLAS = atlas.AtlasSettings(tasks=("copy",), placebos=1, total_steps=2)
PATCH = patch.PatchSettings(tasks=("copy",), n_examples=4, rounds=1, placebos=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which every stage was run on a random model, and the report made."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        collect.main(COLLECT)
        fit.main(FIT)
        attribute.main(ATTRIBUTE)
        atlas.main(ATLAS)
        patch.main(PATCH)
        shutil.copytree(Path(__file__).parents[2] / "figures/calibration", folder / "figures/calibration")
        assert report.main(report.ReportSettings()) == 0
        yield folder


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be changed."""
    shutil.copytree(made, tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which take most of the time."""
    monkeypatch.setattr(report_command, "draw", lambda _: {})


class Page(html.parser.HTMLParser):
    """What a page holds: ids, links, images, quoted numbers, and what findings say outside of quotations and code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.quoted: dict[str, str] = {}
        self.unquoted: list[str] = []
        self.text = self._number = ""
        self._within: list[tuple[str, dict]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        if tag not in ("meta", "link", "img", "br", "input"):
            self._within.append((tag, found))

    def handle_endtag(self, tag: str) -> None:
        opened, attributes = self._within.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        if tag == "data":  # as it is written in numbers.json
            text = self._number.replace("\u2212", "-").replace("\u00d710", "e")
            assert self.quoted.setdefault(attributes["data-key"], text) == text
            self._number = ""

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._within]
        if "script" in tags or "style" in tags:
            return
        self.text += data
        if "data" in tags:
            self._number += data
        elif any("finding" in found.get("class", "").split() for _, found in self._within) and "code" not in tags:
            self.unquoted.append(data)


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page(made / "reports/t.html")


def numbers_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "reports/t/numbers.json").read_text(encoding="utf-8"))["numbers"]


# ------------------------------------------------------------------------------------------------- the page


def test_the_page_needs_nothing_beside_itself(page: Page, made: Path) -> None:
    assert page.sources and all(source.startswith("data:image/webp;base64,") for source in page.sources)
    for link in page.links:
        assert re.match("#|t/|data:,", link), link
    assert (made / "reports/t.html").stat().st_size < 10e6
    assert not re.search(r"@import|url\((?!data:)", re.sub(r"<script>.*?</script>", "", page.source, flags=re.DOTALL))


def test_every_link_resolves(page: Page, made: Path) -> None:
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        elif link.startswith("t/"):
            assert (made / "reports" / unquote(link)).is_file(), link
    # And all that was written is linked.
    linked = {unquote(link) for link in page.links}
    for file in (made / "reports/t").rglob("*"):
        assert file.is_dir() or file.relative_to(made / "reports").as_posix() in linked, file


def test_every_figure_is_there_as_pdf_and_svg(page: Page, made: Path) -> None:
    names = {file.stem for file in (made / "reports/t/figures").iterdir()}
    assert len(page.sources) == len(names) > 15
    for name in names:
        assert (made / f"reports/t/figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (made / f"reports/t/figures/{name}.svg").read_text(encoding="utf-8")
    assert {"curves_copy", "delta", "comparison", "sensitivity", "heads_share_map", "heads_sources_copy"} <= names
    assert {"patch_transfer_copy", "patch_redundancy", "calibration_confusion", "atlas_copy"} <= names


def test_every_number_of_a_sentence_is_quoted(page: Page, made: Path) -> None:
    """None is typed into a template, and none is missing from numbers.json."""
    words = " ".join(page.unquoted)
    words = re.sub(r"\bL\d+(H\d+)?\b", "", words)  # names of heads and layers
    assert not re.search(r"\d", words), re.findall(r".{30}\d.{10}", words)
    numbers = numbers_of(made)
    assert set(page.quoted) == set(numbers)
    for key, text in page.quoted.items():
        assert text == numbers[key]["text"].replace("e-0", "e-"), key


def test_numbers_are_those_of_the_files(page: Page, made: Path) -> None:
    verdict = json.loads((made / "data/fits/t/verdict.json").read_text())["copy"]
    facts = json.loads((made / "data/effects/t.json").read_text())["copy"]
    numbers = numbers_of(made)
    delta = numbers["copy.verdict.delta"]
    assert {k: delta[k] for k in ("value", "low", "high", "unit")} == {
        "value": verdict["delta"]["mean"],
        "low": verdict["delta"]["hdi_low"],
        "high": verdict["delta"]["hdi_high"],
        "unit": "nats/example",
    }
    assert numbers["copy.heads.slope_head"]["value"] == facts["slope_head"]["mean"]
    assert numbers["copy.heads.delta"]["value"] == facts["delta"]["mean"]
    record = json.loads((made / "reports/t/numbers.json").read_text(encoding="utf-8"))["provenance"]
    digests = {hashlib.sha256(file.read_bytes()).hexdigest() for file in made.rglob("*.*") if file.is_file()}
    read = ["data/curves/t.nc", "data/fits/t/verdict.json", "data/fits/t/comparison.csv", "data/effects/t.nc"]
    read += ["data/effects/t.heads.csv", "data/patch/t.nc", "data/patch/t.json", "figures/calibration/outcomes.csv"]
    for file in read:
        assert hashlib.sha256((made / file).read_bytes()).hexdigest() in record["inputs"].values(), file
    assert set(record["inputs"].values()) <= digests and len(record["inputs"]) > 20


ROUNDED = (
    r"(^|\.)(reasons|beside|refused|from|note|ended|ablated|pooled|engines|differs|failed|told|adequacy|controls|"
    r"missing)\."
)

UNITS = {  # by pattern of the key; the first that fits
    r"\.(standing|standing_\w+|n_heads|n_\w+|round|placebos|placebos_beyond|tasks|checks|held|sims)$": None,
    r"\.token(_\w+)?$": None,
    r"\.(share\w*|transfer_reached|peak_first|attention_rise|norm_of_heads|placebo_norm_\w+|heads)$": None,
    r"\.(peak_layer|transfer_\w+|answer_layer|rule_layer|slowing_p|least_share|step\.\d|n_min\w*)$": None,
    ROUNDED: None,
    r"^answer\.": None,
    r"\.learning\.foil$": "nats",
    r"\.learning\.": None,
    r"\.atlas\.delta$": "nats/example",
    r"\.atlas\.": None,
    r"\.patch\.|^calibration\.gain$": "nats",
    r"\.verdict\.delta$|\.heads\.": "nats/example",
    r"\.verdict\.departure$": "%",
}


def test_every_number_has_its_unit(made: Path) -> None:
    numbers = numbers_of(made)
    expected = {key: next((unit for pattern, unit in UNITS.items() if re.search(pattern, key)), "?") for key in numbers}
    assert {key: number.get("unit") for key, number in numbers.items()} == expected
    for key, number in numbers.items():
        assert number.get("rounded", False) == bool(re.search(ROUNDED, key)), key


def test_latex_asks_for_no_number_that_is_not_defined(made: Path) -> None:
    defined = set(re.findall(r"@namedef\{bayesicl@([^}]*)\}", (made / "reports/t/numbers.tex").read_text("utf-8")))
    asked = set(re.findall(r"\\bayesicl\{([^}]*)\}", (made / "reports/t/sentences.tex").read_text("utf-8")))
    assert asked - {"key"} <= defined and len(asked) > 30
    # And none is defined that no sentence asks for, but those of the first table.
    assert {key for key in defined - asked if not key.endswith((".verdict.delta", ".verdict.departure"))} == set()


def test_a_paper_can_input_all_of_it(made: Path, tmp_path: Path) -> None:
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex here")
    tables = [rf"\input{{{file}}}\par" for file in sorted((made / "reports/t/tables").glob("*.tex"))]
    lines = [r"\documentclass[landscape]{article}", r"\usepackage{booktabs}", rf"\input{{{made}/reports/t/numbers}}"]
    lines += [r"\begin{document}\tiny", rf"\input{{{made}/reports/t/sentences}}", *tables, r"\end{document}"]
    (tmp_path / "paper.tex").write_text("\n".join(lines))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-1500:]


def test_every_table_is_there_as_csv_and_latex(made: Path) -> None:
    files = {file.name for file in (made / "reports/t/tables").iterdir()}
    assert {name.split(".")[0] for name in files if name.endswith(".csv")} == {
        name.split(".")[0] for name in files if name.endswith(".tex")
    }
    assert {
        "verdicts.tex",
        "comparison_copy.csv",
        "heads_copy.tex",
        "transfer.csv",
        "calibration.tex",
        "atlas_copy.tex",
    } <= files


def test_the_record_has_the_commands(page: Page) -> None:
    for name in ("collect", "fit", "attribute", "atlas", "patch", "calibrate"):
        assert f"python -m bayes_icl.{name}" in page.text
    assert "not run for these" not in page.text and "weights_sha256" in page.text


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("collect", replace(COLLECT, seed=3)),
        ("fit", replace(FIT, hypotheses_from=Path("my laws.py"), sensitivity=False, curves=Path("a.nc"))),
        ("attribute", replace(ATTRIBUTE, ablate=False, readout="foil", out=Path("x.nc"))),
        ("patch", replace(PATCH, token=0, ablate=("L1H0", "1"), steps=False)),
        ("calibrate", calibrate.CalibrateSettings(n_seqs=40, hypotheses=("additive",))),
        ("fit", fit.FitSettings()),
    ],
)
def test_a_command_gives_its_settings_again(name: str, settings: Any) -> None:
    command = shlex.split(command_of(name, settings_of(settings), type(settings)()))
    assert command[:3] == ["python", "-m", f"bayes_icl.{name}"]
    assert tyro.cli(type(settings), args=command[3:]) == settings


# ------------------------------------------------------------------------------------------------- other data


def changed(path: Path, edit: Any) -> None:
    """Rewrite a JSON file, and remove the records that would tell."""
    for record in path.parent.glob(".*.json"):
        record.unlink()
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_other_data_give_other_sentences(copied: Path, undrawn: None) -> None:
    before = Page(Path("reports/t.html"))

    def edit(verdicts: dict) -> None:
        own = verdicts["copy"]
        own["delta"]["mean"] += 1.5
        own |= {"verdict": "supported", "reasons": ["additive is 77.25 nats from the best"], "selected": "additive"}

    changed(Path("data/fits/t/verdict.json"), edit)

    def other(facts: dict) -> None:
        facts["copy"]["slope_head"]["mean"] += 1.5

    changed(Path("data/effects/t.json"), other)
    report.main(report.ReportSettings())
    after = Page(Path("reports/t.html"))
    for key in ("copy.verdict.delta", "copy.heads.slope_head"):
        assert before.quoted[key] != after.quoted[key]
    assert after.quoted["copy.verdict.reasons.0.0"] == "77.25"
    # What was not changed is as it was: the control.
    assert before.quoted["copy.patch.rule_gain"] == after.quoted["copy.patch.rule_gain"]
    assert before.quoted["random_labels.verdict.delta"] == after.quoted["random_labels.verdict.delta"]
    assert "Yes." in after.text and "Yes." not in before.text


def test_text_from_elsewhere_passes_for_no_number_and_for_no_latex(copied: Path, undrawn: None) -> None:
    """Files may come from others, with the signs that mark a number here, and with LaTeX."""
    forged = "\ue000x}\\input{/etc/passwd}{\ue001y\ue002 \\input{/etc/shadow} 5%"

    def edit(verdicts: dict) -> None:
        verdicts["copy"]["reasons"] = [forged]
        verdicts["copy"]["notes"] = [forged]

    changed(Path("data/fits/t/verdict.json"), edit)
    report.main(report.ReportSettings())
    for name in ("sentences.tex", "numbers.tex"):
        text = (Path("reports/t") / name).read_text()
        assert "\\input{/etc" not in text
    said = Path("reports/t/sentences.tex").read_text()
    assert r"\textbackslash{}input\{/etc/shadow\}" in said  # the control: it was written there, as text
    assert not any("passwd" in key for key in Page(Path("reports/t.html")).quoted)


def test_stages_that_were_not_run_are_named(copied: Path, undrawn: None, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("data/fits", "data/effects", "data/atlas", "data/patch", "figures", "reports"):
        shutil.rmtree(folder)
    assert report.main(report.ReportSettings()) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == ["reports/t", "reports/t.html"]
    page = Page(Path("reports/t.html"))
    for name in ("fit", "attribute", "atlas", "patch"):
        command = f"python -m bayes_icl.{name} --curves data/curves/t.nc"
        assert command in page.text and command in printed.err
    assert "--n-seqs 32 --n-shots 12" in page.text  # the least that calibrate takes
    assert "Not judged yet" in page.text and not page.sources
    assert "not calibrated" not in page.text  # nothing was fitted


def test_what_is_of_other_curves_is_left_out(copied: Path, undrawn: None, capsys: pytest.CaptureFixture[str]) -> None:
    collect.main(replace(COLLECT, seed=1, force=True))
    assert report.main(report.ReportSettings()) == 0
    assert capsys.readouterr().err.count("was made from other curves") == 4
    page = Page(Path("reports/t.html"))
    assert "was made from other curves" in page.text and "--force" in page.text and "Not judged yet" in page.text
    with pytest.raises(StatedError, match=r"--fits data/fits/t: was made from other curves; run `python -m bayes_icl"):
        report.main(report.ReportSettings(fits=Path("data/fits/t")))


def test_a_stage_that_was_killed_is_not_taken_for_whole(copied: Path, undrawn: None) -> None:
    Path("data/fits/t/provenance.json").unlink()
    Path("data/effects/t.nc").write_bytes(Path("data/effects/t.nc").read_bytes()[:1000])
    report.main(report.ReportSettings())
    page = Page(Path("reports/t.html"))
    assert (
        "Not judged yet" in page.text
        and "data/fits/t is not whole" in page.text
        and "data/effects/t.nc is not whole" in page.text
    )


def test_what_another_command_wrote_is_not_taken(copied: Path, undrawn: None) -> None:
    with pytest.raises(
        StatedError, match=r"--patch data/effects/t\.nc: is not whole, or was not written by this version of patch"
    ):
        report.main(report.ReportSettings(patch=Path("data/effects/t.nc")))
    with pytest.raises(
        StatedError, match=r"--fits data/fits/t/copy__additive\.nc: .*was not written by this version of fit"
    ):
        report.main(report.ReportSettings(fits=Path("data/fits/t/copy__additive.nc")))
    Path("data/fits/t/checks.csv").unlink()
    report.main(report.ReportSettings())
    assert "data/fits/t is not as fit wrote it: checks.csv is missing" in Page(Path("reports/t.html")).text


def test_verdicts_of_before_are_refused_in_a_line(
    copied: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """They had other rules: no departure, no total, and priors halved and doubled."""

    def edit(verdicts: dict) -> None:
        for own in verdicts.values():
            for one in (own, *own["others"]):
                for name in ("departure", "second_half", "total", "ceiling", "mean_curve", "noise_shape"):
                    one.pop(name, None)
                one |= {"priors": "stated", "named": one.pop("selected")}

    changed(Path("data/fits/t/verdict.json"), edit)
    assert report.main(report.ReportSettings()) == 0
    said = "data/fits/t is not whole, or was not written by this version of fit"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if said in line]
    assert line.endswith("python -m bayes_icl.fit --curves data/curves/t.nc --force")
    text = Page(Path("reports/t.html")).text
    assert said in text and "Not judged yet" in text
    with pytest.raises(
        StatedError, match=r"--fits data/fits/t: is not whole, or was not written by this version of fit"
    ):
        report.main(report.ReportSettings(fits=Path("data/fits/t")))


@pytest.mark.parametrize("name", ["data/fits/t/comparison.csv", "data/fits/t/verdict.json", "data/effects/t.heads.csv"])
def test_a_file_that_was_cut_short_is_not_taken_for_the_whole(copied: Path, undrawn: None, name: str) -> None:
    """Half of a table reads as well as all of it; without its record it would be drawn."""
    path = Path(name)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\n", 0, len(whole) // 2 + 200) + 1])
    report.main(report.ReportSettings())
    text = Page(Path("reports/t.html")).text
    assert f"{path.name} is changed" in text and "--force" in text
    path.write_bytes(whole)  # the control
    report.main(report.ReportSettings())
    assert f"{path.name} is changed" not in Page(Path("reports/t.html")).text


def test_fits_of_some_tasks_say_of_which(copied: Path, undrawn: None) -> None:
    fit.main(replace(FIT, tasks=("copy",), hypotheses=("constant", "additive", "power"), force=True, sensitivity=False))
    report.main(report.ReportSettings())
    assert "Not judged: random_labels." in Page(Path("reports/t.html")).text
    left = {file.name for file in Path("reports/t/tables").iterdir()}  # nothing of the run before
    assert "comparison_copy.csv" in left and "comparison_random_labels.csv" not in left
    assert list(Path("reports/t/figures").iterdir()) == []


def test_a_users_own_law_is_shown(copied: Path) -> None:
    """In a process that has not read the file that registers it."""
    laws = Path(__file__).parents[2] / "analyses/my_laws.py"
    own = replace(FIT, hypotheses=("constant", "additive", "power"), hypotheses_from=laws, force=True, tasks=("copy",))
    command = [
        sys.executable,
        "-m",
        "bayes_icl.fit",
        *shlex.split(command_of("fit", settings_of(own), fit.FitSettings()))[3:],
    ]
    subprocess.run([*command, "--force"], check=True, capture_output=True)
    assert report.main(report.ReportSettings()) == 0
    assert "leaky_counts" in Page(Path("reports/t.html")).text


def settings_of(settings: Any) -> dict[str, Any]:
    """As a record holds them."""
    return json.loads(json.dumps(settings.__dict__, default=str))


def test_calibration_of_another_size_is_said_to_be(page: Page) -> None:
    assert "Not the very settings used" in page.text and "calibrated on other settings" in page.text
    assert "calibrate --n-seqs 32 --n-shots 12" in page.text


def test_effects_without_intervention_say_so(copied: Path, undrawn: None) -> None:
    Path("data/effects/.t.nc.json").unlink()  # which would tell that they were changed
    for name in ("ablation", "repair"):
        table = Path(f"data/effects/t.{name}.csv")
        table.write_text(table.read_text().splitlines()[0] + "\n")
    report.main(report.ReportSettings())  # there was nothing to ablate: no command would change that
    assert "direct effects only" not in Page(Path("reports/t.html")).text
    effects = xr.load_dataset("data/effects/t.nc", engine="h5netcdf")
    record = json.loads(effects.attrs["provenance"])
    record["settings"]["ablate"] = False
    effects.attrs["provenance"] = json.dumps(record)
    effects.to_netcdf("data/effects/t.nc", engine="h5netcdf")
    report.main(report.ReportSettings())
    page = Page(Path("reports/t.html"))
    assert "direct effects only" in page.text and "bayes_icl.attribute --tasks copy" in page.text


def test_a_table_of_log_odds_is_enough(copied: Path) -> None:
    """Curves from elsewhere know no model, no queries; names may be anything."""
    name = '<b>"a" & `b`</b>'
    rows = [
        f'"{name.replace(chr(34), chr(34) * 2)}",{s},{n},{0.1 * n + 0.3 * ((s * n) % 5)}'
        for s in range(9)
        for n in range(12)
    ]
    Path("mine.csv").write_text("\n".join(["task,seq,shot,log_odds", *rows]))
    fit.main(replace(FIT, curves=Path("mine.csv"), readout=("complement",), pool=False))
    assert report.main(report.ReportSettings(curves=Path("mine.csv"))) == 0
    page = Page(Path("reports/mine.html"))
    assert (
        name in page.text
        and "name no model that could be run again" in page.text
        and "the same evidence in the model" in page.text
    )


# ------------------------------------------------------------------------------------------------- bad input


def test_figures_of_the_users_are_stated_before_a_page_is_written(copied: Path) -> None:
    Path("mine").mkdir()
    Path("mine/comparison.svg").write_text("drawn by hand")
    before = Path("reports/t.html").read_bytes()
    with pytest.raises(StatedError, match=r"mine/comparison\.svg is in the way"):
        report.main(report.ReportSettings(figures=Path("mine")))
    assert Path("reports/t.html").read_bytes() == before
    assert {path.name for path in Path("mine").iterdir()} == {"comparison.svg"}


def test_the_default_folder_of_figures_may_be_named(copied: Path, undrawn: None) -> None:
    for _ in range(2):
        assert report.main(report.ReportSettings(figures=Path("reports/t/figures"))) == 0
    with pytest.raises(StatedError, match="which belongs to the page alone"):
        report.main(report.ReportSettings(figures=Path("reports/t/others")))
    with pytest.raises(StatedError, match="where fits stand alone"):
        fit.main(replace(FIT, figures=Path("data/fits/t/figures")))


def test_nothing_else_is_replaced(copied: Path) -> None:
    Path("mine.html").write_text("<p>my notes</p>")
    with pytest.raises(StatedError, match=r"mine\.html exists, and no record says that report wrote it: .*--force"):
        report.main(report.ReportSettings(out=Path("mine.html")))
    assert Path("mine.html").read_text() == "<p>my notes</p>"
    with pytest.raises(StatedError, match=r"ends in \.html"):
        report.main(report.ReportSettings(out=Path("report.pdf")))


@pytest.mark.parametrize(
    ("flag", "settings"),
    [
        ("--curves", {"curves": Path("absent.nc")}),
        ("--fits", {"fits": Path("absent")}),
        ("--effects", {"effects": Path("absent.nc")}),
        ("--patch", {"patch": Path("absent.nc")}),
        ("--calibration", {"calibration": Path("absent")}),
    ],
)
def test_a_wrong_path_is_one_clear_line(copied: Path, flag: str, settings: dict) -> None:
    before = Path("reports/t.html").read_bytes()
    with pytest.raises(StatedError) as error:
        report.main(report.ReportSettings(**settings))
    assert flag in str(error.value) and "absent" in str(error.value) and "python -m" in str(error.value)
    assert "\n" not in str(error.value)
    assert Path("reports/t.html").read_bytes() == before


def test_a_run_that_fails_leaves_the_page_that_was(
    copied: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path("reports/t.html").read_bytes()
    monkeypatch.setattr("bayes_icl.report.command.table_files", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        report.main(report.ReportSettings())
    assert Path("reports/t.html").read_bytes() == before


# ------------------------------------------------------------------------------------------------- in a browser

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("no Chromium here: install it (Debian: apt-get install chromium) to open the report")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_a_browser_shows_it(chromium: Any, made: Path, width: int, height: int, scheme: str) -> None:
    """No error in the console, every figure loaded, nothing wider than the screen, hovering works, links lead there."""
    tab = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("requestfailed", lambda request: problems.append(request.url))
    tab.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    tab.goto((made / "reports/t.html").as_uri())
    tab.wait_for_function(
        "[...document.querySelectorAll('.js-plotly-plot')].every((d) => d.querySelector('.main-svg'))"
    )
    images = tab.evaluate(
        "Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth, () => 0)))"
    )
    assert images and min(images) > 300
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    answer = tab.locator(".word").bounding_box()
    assert answer["y"] + answer["height"] < height  # on the first screen
    offered = tab.evaluate("[...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title)")
    assert set(offered) == {"Download plot as a PNG", "Zoom", "Pan", "Reset axes"}  # nothing that sends data away
    figures = tab.locator(".js-plotly-plot")
    assert figures.count() >= 4
    for i in range(figures.count()):
        figure = figures.nth(i)
        figure.scroll_into_view_if_needed()
        box = figure.locator(".nsewdrag").first.bounding_box()
        shown = figure.locator(".hoverlayer .hovertext")
        for share in (0.5, 0.3, 0.7, 0.15, 0.85, 0.05, 0.95):  # lines may leave the middle free
            tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + share * box["height"])
            tab.wait_for_timeout(120)
            if shown.count():
                break
        assert shown.count(), f"nothing shows over figure {figure.get_attribute('id')}"
        assert re.search(r"\d", shown.first.text_content())
    # Figures to hover over have the page's colours.
    ink = tab.evaluate("getComputedStyle(document.body).color")
    assert tab.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill") == ink
    tab.evaluate("document.querySelector('nav details').open = true")
    tab.locator("nav a", has_text="Settings").click()
    tab.wait_for_timeout(200)
    assert 0 <= tab.locator("#provenance").bounding_box()["y"] < height
    assert problems == []
    tab.close()


def test_on_paper_nothing_is_folded_or_left_blank(chromium: Any, made: Path) -> None:
    tab = chromium.new_page(color_scheme="dark")
    tab.goto((made / "reports/t.html").as_uri())
    tab.emulate_media(media="print")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.locator(".explorer").first.is_hidden() and tab.locator("nav").is_hidden()
    assert tab.locator("details:not([open])").count() == 0
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.set_viewport_size({"width": 720, "height": 1000})  # A4 without its margins
    wide = "[...document.querySelectorAll('.scroll')].filter((d) => d.scrollWidth > d.clientWidth + 1).length"
    assert tab.evaluate(wide) == 0
    assert tab.pdf()[:4] == b"%PDF"
    tab.close()


def test_the_browser_test_sees_errors(chromium: Any, tmp_path: Path) -> None:
    """The control: a page with an error in its script and a figure that is not there."""
    (tmp_path / "bad.html").write_text("<img src='absent.webp'><script>undefinedFunction()</script>")
    tab, problems = chromium.new_page(), []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("requestfailed", lambda request: problems.append(request.url))
    tab.goto((tmp_path / "bad.html").as_uri())
    assert len(problems) == 2
    tab.close()


@pytest.mark.parametrize(
    ("name", "shown"), [("a\u202eb", "a\\u202eb"), ("\ue000x\ue002", "\\ue000x\\ue002"), ("tiny", "tiny")]
)
def test_the_name_of_a_model_can_be_printed(name: str, shown: str) -> None:
    found = StageOutputs(Path("t.nc"), xr.Dataset(), records={"collect": {"model": {"model": name}}})
    assert found.model == shown
