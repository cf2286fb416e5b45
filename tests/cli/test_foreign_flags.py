"""Flags and commands that are not ours: each gets a sentence, and every way that is named is there."""

import re
import shlex

import click
import pytest

from miniinfer_cli.cli.commands import cli
from miniinfer_cli.cli.foreign_flags import FOREIGN, way_of
from miniinfer_cli.cli.unknown import _COMMANDS, own_flags
from tests.foreign_page import PAGE, START, tables

COMMANDS = {command.name: command for command in cli.all_commands()}
NAMES = [name for foreign in FOREIGN for name in foreign.names]


def test_the_page_is_up_to_date():
    assert PAGE.read_text().partition(START)[2] == tables(), "run python -m tests.foreign_page"


def test_what_the_page_shows_of_ours_is_there():
    ours = re.findall(r"\| `(?:trtexec )?--[^|]*\| ([^|]*) \|", PAGE.read_text().partition(START)[0])
    assert len(ours) >= 7
    for text in ours:
        command = re.search(r"`(?:miniinfer )?(\w+)", text).group(1)
        assert set(re.findall(r"(?<![\w-])--[\w-]+", text)) <= set(own_flags(COMMANDS[command])), text


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda f: f.names[0])
def test_every_way_that_is_named_exists(foreign):
    """``run --x`` names a flag of run; a flag with no command before it one of any command."""
    assert re.fullmatch(r"[^A-Z\n].*[^.]|CUDA.*|TF32.*", foreign.way)  # stands behind a colon
    named = re.findall(r"(?:\b(build|run|profile|inspect|devices) (?:[A-Z]+ )?)?(?<![\w-])(--[\w-]+)", foreign.way)
    for command, flag in named:
        holders = [COMMANDS[command]] if command else COMMANDS.values()
        assert any(flag in own_flags(holder) for holder in holders), f"{command} {flag}"
    for command in re.findall(r"miniinfer (\w+)", foreign.way):
        assert command in COMMANDS
    assert named or len(foreign.way.split()) >= 5


def test_there_are_some_sixty_and_each_is_found_however_it_is_written():
    assert len(NAMES) > 120
    assert {f.tool for f in FOREIGN} == {"trtexec", "polygraphy", "benchmark_app", "perf_analyzer"}
    assert len(NAMES) == len(set(NAMES))
    assert [way_of(n) for n in NAMES] == [f.way for f in FOREIGN for _ in f.names]
    assert way_of("--useCudaGraph") == way_of("-usecudagraph") == way_of("--use-cuda-graph") != ""
    assert way_of("--frobnicate") == ""


def typed(name: str) -> list[str]:
    return [f"{name}=1" if name.startswith("--") else name, "1"]


@pytest.mark.parametrize("command", ["", "build", "run", "profile", "inspect"])
def test_every_foreign_flag_is_refused_with_its_sentence(miniinfer, command):
    own = own_flags(COMMANDS[command]) if command else {"-h": False, "--help": False}
    names = [n for n in NAMES if n not in own and not own.get(n[:2], False)]
    args = [*([command, "file"] if command else []), *(word for n in names for word in typed(n))]
    outcome = miniinfer(*args)
    assert (outcome.code, outcome.out) == (2, "")
    first, *hints = outcome.err.splitlines()
    assert first == f"miniinfer: error: No such options: {', '.join(dict.fromkeys(names))}"
    assert hints[:-1] == [f"  {n}: {way_of(n)}" for n in dict.fromkeys(names)]
    assert hints[-1].endswith(f"{f'miniinfer {command}'.strip()} -h lists the flags")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run m.plan --useCudaGraph", "--useCudaGraph: CUDA graphs are on already; --no-cuda-graph turns them off"),
        ("run m.plan --no-cuda-graph --warmUp 100", "--warmUp: here it is run --warmup, in milliseconds as well"),
        ("run m.plan -hint latency", "-hint: latency is what run measures"),
        ("run m.plan --iteratons=3", "--iteratons: did you mean --iterations?"),
        ("run m.plan --avg_runs 3", "--avg_runs: here it is run --avg-runs"),
        ("run m.plan --top 3", "--top: it is a flag of profile, and stands behind the command"),
        ("--streams 2 run m.plan", "--streams: it is a flag of run, profile and compare, and stands behind the command"),
        ("build m.onnx --opt-leve 1", "--opt-leve: did you mean --opt-level?"),
        ("build m.onnx --verifi", "--verifi: did you mean --verify?"),
        ("devices --mesure", "--mesure: did you mean --measure?"),
        ("build m.onnx -o --json --int4", "--int4: build --weight-only int4 stores weights"),
    ],
)
def test_one_flag(miniinfer, line, said):
    outcome = miniinfer(*shlex.split(line))
    assert outcome.code == 2
    first, second, *_ = outcome.err.splitlines()
    assert first == f"miniinfer: error: No such option: {said.partition(':')[0]}"
    assert second.startswith(f"  {said}")


@pytest.mark.parametrize(
    ("flags", "told"), [("--onnx=m.onnx --saveEngine=m.plan", True), ("--warmUp=3 --frobnicate", False), ("--warm-up 3", False)]
)
def test_whole_command_lines_of_trtexec_have_a_command(miniinfer, flags, told):
    *_, hint = miniinfer("run", "m.plan", *flags.split()).err.splitlines()
    assert hint.startswith("  hint: miniinfer trtexec takes command lines of trtexec as they are; ") == told


def test_of_some_flags_nothing_is_known(miniinfer):
    outcome = miniinfer("inspect", "m.onnx", "--frobnicate", "--graf", "--fp16")
    assert outcome.err.splitlines()[:3] == [
        "miniinfer: error: No such options: --frobnicate, --graf, --fp16",
        "  --graf: did you mean --graph?",
        "  --fp16: here it is build --fp16",
    ]
    alone = miniinfer("inspect", "m.onnx", "--frobnicate").err
    assert alone == "miniinfer: error: No such option: --frobnicate\n  hint: miniinfer inspect -h lists the flags\n"


def test_values_that_look_like_flags_are_values(miniinfer, plan):
    assert "No such" not in miniinfer("run", plan, "--seed", "-1", "--output", "--fp16").err


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bild", "did you mean build? The commands are build, run, tune, profile, compare, report, inspect, devices, serve"),
        ("Profil", "did you mean profile? The commands are"),
        ("xyzzy", "the commands are build, run, tune, profile, compare, report, inspect, devices, serve"),
        ("net.onnx", "build it first: miniinfer build net.onnx"),
        ("net.plan", "miniinfer run net.plan, or profile, or inspect"),
        ("polygraphy", "build makes the plan and run measures it: see docs/coming-from-trtexec.md"),
        ("convert", "that is build here: miniinfer build -h"),
        ("benchmark", "that is run here: miniinfer run -h"),
    ],
)
def test_commands_that_there_are_not(miniinfer, name, hint):
    outcome = miniinfer(name, "more")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"miniinfer: error: No such command {name!r}.\n  hint: {hint}")


def test_commands_of_others_are_commands_of_ours():
    assert set(_COMMANDS.values()) <= set(COMMANDS)
    assert not set(_COMMANDS) & set(COMMANDS)


@pytest.mark.parametrize(
    ("device", "hint"), [("0", "cuda:0"), ("GPU", "cuda:0"), ("CPU", "cpu"), ("CUDA:1", "cuda:1"), ("Auto", "auto"), ("tpu", "")]
)
def test_devices_by_other_names(miniinfer, plan, device, hint):
    outcome = miniinfer("run", plan, "--device", device)
    assert outcome.code == 2
    message = f"miniinfer: error: device {device!r} is not one of auto, cpu, cuda:N\n"
    assert outcome.err == message + f"  hint: {f'did you mean {hint}?' if hint else 'miniinfer devices lists what there is'}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_have_the_flags_that_click_gives_them(name):
    context = click.Context(COMMANDS[name])
    assert set(own_flags(COMMANDS[name])) == {
        o for p in COMMANDS[name].get_params(context) for o in p.opts if o.startswith("-")
    } | {"-h"}
