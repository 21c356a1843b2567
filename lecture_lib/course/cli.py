"""The command `lecture`. Each subcommand is a short function with a line of help; the work is elsewhere."""

import argparse
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import DATA, MINE, NOTEBOOKS, OUT, ROOT, SHIPPED, SOLUTIONS, check_project
from lecture_lib.base.threads import VARIABLE, fixed, wait_awake

PYTEST = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--dist", "loadfile",
          "--no-loadscope-reorder"]  # fmt: skip
CORES = 2  # what course and suite are planned for: that many notebooks at a time, with a thread each
PATHS = ("corpus", "gpt2_weights")  # parameters that are paths, as seen from where the command is given
# Chapters of a minute or more, longest first.
LONG = ("11", "17c", "16b", "10", "09", "13c", "14b", "14c", "12b", "18", "16c", "17b")
# Stand-ins for other machines: their thread counts, and a processor without vector instructions.
OTHER_MACHINES = [fixed(1), fixed(2), fixed(1) | {"ATEN_CPU_CAPABILITY": "default"}]


def main(argv: list[str] | None = None) -> int:
    """Run `lecture ...`; returns the exit status: 0 if all went well, 1 if not."""
    arguments = parser().parse_args(argv)
    try:
        check_project()
        with all_ended_like_ctrl_c():
            return arguments.action(arguments)
    except CourseError as error:
        print(f"lecture: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # it would tell how the cell that was cut short ended
        print("\nlecture: interrupted", file=sys.stderr)
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's last flush fails too
    return 1


@contextmanager
def all_ended_like_ctrl_c() -> Iterator[None]:
    """While the block runs, being asked to end, or a terminal that closes, raises KeyboardInterrupt.

    Python's own way ends this process alone: the kernels and workers that it started would go on.
    """
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGHUP)}
    for signum, handler in before.items():
        if handler != signal.SIG_IGN:  # as nohup has it
            signal.signal(signum, signal.default_int_handler)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def parser() -> argparse.ArgumentParser:
    """The commands, each from a function `..._command` whose docstring is its help."""
    top = argparse.ArgumentParser(
        prog="lecture", description="Let's build GPT: run, test and maintain the notebooks."
    )
    commands = top.add_subparsers(required=True, metavar="command")

    def command(action: Callable[[argparse.Namespace], int], **options) -> argparse.ArgumentParser:
        name, help = action.__name__.removesuffix("_command"), action.__doc__
        added = commands.add_parser(name, help=help, description=help, **options)
        added.set_defaults(action=action)
        return added

    add_commands_of_learners(command)
    add_commands_of_maintainers(command)
    return top


def add_commands_of_learners(command: Callable[[Callable], argparse.ArgumentParser]) -> None:
    """The commands that README and notebooks speak of, with their options."""
    command(corpus_command)

    run = command(run_command)
    run.add_argument("chapters", nargs="*", metavar="chapter", help="a number or a name: 03, bigram")
    run.add_argument("--preset", default="cpu", help="a table of notebooks/presets.toml (default: cpu)")
    run.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
                     help="set one parameter of the chapter")  # fmt: skip

    sample = command(sample_command)
    sample.add_argument("--prompt", default="\n", help="what the text begins with (default: a newline)")
    sample.add_argument("--length", type=int, default=500, help="characters to add (default: %(default)s)")
    sample.add_argument("--temperature", type=float, default=1.0, help="below 1 is careful, above 1 is wild")
    sample.add_argument("--top-k", type=int, help="draw from the k most likely characters (default: all)")
    sample.add_argument("--seed", type=int, default=1337, help="same seed, same text (default: %(default)s)")
    sample.add_argument("--exact", action="store_true",
                        help="beyond the context, forget one token at a time: slower")  # fmt: skip
    sample.add_argument("--bfloat16", action="store_true", help="weights rounded to half the bytes")
    source = sample.add_mutually_exclusive_group()
    source.add_argument("--model", choices=SHIPPED, default="full",
                        help="one that comes with the course (default: %(default)s)")  # fmt: skip
    source.add_argument("--checkpoint", type=Path, help="your own, e.g. out/11_gpt/cpu/model")

    train = command(train_command)
    train.add_argument("--text", type=Path, required=True, metavar="PATH", help="a UTF-8 text in any script")
    train.add_argument("--minutes", type=positive, default=10, help="to take, about (default: %(default)s)")
    train.add_argument("--out", type=Path, metavar="FOLDER", help="for the model (default: out/train/NAME)")
    train.add_argument("--seed", type=seed, default=1337, help="of the generator (default: %(default)s)")
    train.add_argument("--pieces", type=int, metavar="N",
                       help="instead of characters, a vocabulary of N pieces of words")  # fmt: skip

    speedrun = command(speedrun_command)
    speedrun.add_argument("seeds", nargs="*", type=int, default=[1337], help="one race each (default: 1337)")
    speedrun.add_argument("--race", default="fast", help="an unknown name lists them all (default: fast)")
    speedrun.add_argument("--record", action="store_true", help="store the result in data/recorded")
    speedrun.add_argument("--ablate", action="store_true",
                          help="instead, measure what each ingredient is worth, at equal time")  # fmt: skip
    speedrun.add_argument("--variant", metavar="NAME",
                          help='instead, one of those variants for all of the steps')  # fmt: skip
    pretrain = command(pretrain_command)
    pretrain.add_argument("model", help="small (chapter 13's network) or speedrun")
    command(progress_command)
    command(bench_command)
    command(book_command)
    lab = command(lab_command, prefix_chars="\0", add_help=False)  # every word is JupyterLab's, --help too
    lab.add_argument("options", nargs="*", help="for JupyterLab, e.g. --port 9999")


def positive(text: str) -> float:
    """A number of minutes: above 0, and finite; argparse tells of a ValueError."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def seed(text: str) -> int:
    """What torch's generator takes, without its negative alias."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError
    return number


def add_commands_of_maintainers(command: Callable[[Callable], argparse.ArgumentParser]) -> None:
    """The commands for those who change a notebook, and for CI."""
    test = command(test_command).add_mutually_exclusive_group()
    test.add_argument("--portable", action="store_true",
                      help="nbval alone, with one thread, two, and without vector instructions")  # fmt: skip
    test.add_argument("--parameters", action="store_true",
                      help="instead, chapters at a small size with many other parameters")  # fmt: skip
    test.add_argument("--shard", type=shard, default=slice(None), metavar="N/M",
                      help="the N-th of M parts of it, for machines side by side")  # fmt: skip
    command(check_command)
    command(promote_command).add_argument(
        "--check", action="store_true", help="write nothing; fail when notebooks and library differ"
    )
    refresh = command(refresh_command)
    refresh.add_argument("chapters", nargs="*", metavar="chapter", help="default: all")
    refresh.add_argument("--solutions", action="store_true", help="instead, the notebooks of solutions")
    command(tidy_command)
    ship = command(ship_command)
    ship.add_argument("run", type=Path, help="its folder, e.g. out/trainer")
    ship.add_argument("name", help="e.g. full: of data/checkpoint/full.* and data/recorded/full.json")
    ship.add_argument("--commit", required=True, help="that the run was started from")
    seeds = command(seeds_command)
    seeds.add_argument("chapter")
    seeds.add_argument("seeds", nargs="+", type=int)


# ---------------------------------------------------------------- what learners use


def corpus_command(arguments: argparse.Namespace) -> int:
    """Build and verify tiny Shakespeare, if it isn't there yet."""
    from lecture_lib.base.corpus import build_corpus

    print(build_corpus(DATA))
    return 0


def run_command(arguments: argparse.Namespace) -> int:
    """Execute all notebooks, or the named chapters, into out/."""
    from lecture_lib.base.corpus import build_corpus

    from .execution import run_chapters, table
    from .kernels import own_kernels

    chapters = chosen(arguments.chapters)
    build_corpus(DATA)
    results = []
    try:
        given = parameters(arguments.parameters)
        with own_kernels():
            for result in run_chapters(chapters, arguments.preset, given, side_by_side=CORES):
                results.append(result)
                if result.failure:
                    print(f"\nlecture: {result.failure}", file=sys.stderr)
    finally:
        if results:
            print("\n" + table(results))
    return int(any(result.failure for result in results))


def sample_command(arguments: argparse.Namespace) -> int:
    """Write text with a trained model, token by token."""
    wait_awake()
    from .sampling import load_writer, stream_text

    model, tokenizer = load_writer(arguments.checkpoint or SHIPPED[arguments.model], arguments.bfloat16)
    names = ("prompt", "length", "seed", "temperature", "top_k", "exact")
    pieces = stream_text(model, tokenizer, **{name: getattr(arguments, name) for name in names})
    began = time.perf_counter()
    written = print_streamed(arguments.prompt, pieces)
    seconds = time.perf_counter() - began
    speed = len(written) / seconds
    print(f"{len(written)} characters in {seconds:.1f} s: {speed:.0f} a second", file=sys.stderr)
    if len(tokenizer.encode(arguments.prompt + written)) > model.block_size and not arguments.exact:
        print(
            f"the text is longer than the context of {model.block_size} tokens: whenever that was full, "
            "its first half was forgotten; --exact forgets one token at a time",
            file=sys.stderr,
        )
    return 0


def print_streamed(prompt: str, pieces: Iterator[str]) -> str:
    """Print the prompt and the pieces that continue it, each as it comes; return the pieces, joined."""
    written = next(pieces, "")  # bad input is refused here, before anything is printed
    print(prompt + written, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
        written += piece
    print()
    return written


def train_command(arguments: argparse.Namespace) -> int:
    """Train a GPT on your own text for some minutes; Ctrl-C ends early and keeps the best model."""
    from lecture_lib.own_text import train_own_text

    folder = arguments.out or OUT / "train" / arguments.text.stem
    model = train_own_text(arguments.text, folder, arguments.minutes, arguments.seed, arguments.pieces)
    print(f"wrote {model}.safetensors and .json\nlecture sample --checkpoint {shlex.quote(str(model))}")
    return 0


def speedrun_command(arguments: argparse.Namespace) -> int:
    """Train chapter 16c's model from random weights, on two cores, by the clock."""
    import torch

    from .experiments.races import ablate, at_full_length, races
    from .records_page import renew

    torch.set_num_threads(1 if arguments.ablate or arguments.variant else CORES)
    if arguments.ablate:
        runs = ablate(arguments.race)
    elif arguments.variant:
        runs = (at_full_length(arguments.variant, arguments.race, seed) for seed in arguments.seeds)
    else:
        runs = races(arguments.seeds, arguments.race, arguments.record)
    for run in runs:
        print("  ".join(f"{name} {value}" for name, value in run.items()), flush=True)
    if arguments.record or arguments.ablate:
        renew()
    return 0


def pretrain_command(arguments: argparse.Namespace) -> int:
    """Measure what chapter 18's pretraining buys; what is recorded already isn't run again."""
    import torch

    from .experiments.pretraining import pretrain
    from .records_page import renew

    torch.set_num_threads(1)
    for run in pretrain(arguments.model):
        print(f"{run['arm']}, seed {run['seed']}: {run['val']:.4f}", flush=True)
    renew()
    return 0


def bench_command(arguments: argparse.Namespace) -> int:
    """Time the course's models side by side; renew the record and docs/records.md."""
    import torch

    from .experiments.bench import record_benchmark

    torch.set_num_threads(CORES)
    print(record_benchmark())
    return 0


def book_command(arguments: argparse.Namespace) -> int:
    """Make the course a book in the browser: out/book/index.html."""
    from .book.staging import build_book

    print(f"wrote {build_book()}")
    return 0


def parameters(words: list[str]) -> dict[str, str]:
    """Name -> value, as text, of each NAME=VALUE; CourseError for another form."""
    for word in words:
        if "=" not in word:
            raise CourseError(f"-p {word}: expected NAME=VALUE, e.g. -p max_iters=500")
    given = dict(word.split("=", 1) for word in words)
    for name in PATHS:
        if given.get(name):  # a chapter runs in a folder of its own
            given[name] = str(Path(given[name]).absolute())
    return given


def chosen(keys: list[str], folder: Path = NOTEBOOKS) -> list:
    """The chapters in `folder` that the keys name, or all by default; CourseError for an unknown one."""
    from .chapters import all_chapters, find_chapter

    return [find_chapter(key, folder) for key in keys] if keys else all_chapters(folder)


def progress_command(arguments: argparse.Namespace) -> int:
    """Show which exercises you have solved, chapter by chapter."""
    from .progress import progress_table

    print(progress_table())
    return 0


def lab_command(arguments: argparse.Namespace) -> int:
    """Open JupyterLab in my_notebooks/, your own copies of the chapters."""
    from .copies import lay_out
    from .kernels import own_kernels

    for sentence in lay_out():
        print(f"lecture: {sentence}", file=sys.stderr)
    with own_kernels(isolated=False):
        return subprocess.call([sys.executable, "-m", "jupyter", "lab", *arguments.options], cwd=MINE)


# ---------------------------------------------------------------- what maintainers and CI use


def test_command(arguments: argparse.Namespace) -> int:
    """Pass all tests: the checks, pytest, and nbval over every notebook."""
    from lecture_lib.base.corpus import build_corpus

    from .kernels import own_kernels

    build_corpus(DATA)
    with own_kernels():
        if arguments.portable:
            failures = [nbval_as_on(machine) for machine in OTHER_MACHINES]  # one that was killed is below 0
            return int(any(failures))
        if arguments.parameters:
            return pytest(["tests/test_parameters.py", "-m", "grid", "--dist", "load"], fixed(1))
        long, short = notebooks_by_length()  # the short ones last: then no worker waits long for the other
        return check_command(arguments) or pytest([*long, "tests", *short][arguments.shard], fixed(1))


def shard(text: str) -> slice:
    """`2/3` as every third file beginning with the second, so that each part has its share of long ones."""
    number, parts = map(int, text.split("/"))  # argparse tells of a ValueError
    if not 1 <= number <= parts:
        raise ValueError
    return slice(number - 1, None, parts)


def nbval_as_on(machine: dict[str, str]) -> int:
    """The exit status of nbval over all notebooks, under a machine's environment variables."""
    settings = " ".join(f"{name}={value}" for name, value in machine.items() if value)
    print(f"\nnbval with {settings}", flush=True)
    long, short = notebooks_by_length()
    return pytest([*long, *short], machine)


def notebooks_by_length() -> tuple[list[str], list[str]]:
    """The paths of the notebooks that take a minute or more, longest first, and of the others."""
    from .chapters import all_notebooks, find_chapter

    long = [find_chapter(label) for label in LONG]
    short = [chapter for chapter in all_notebooks() if chapter not in long]
    return [str(chapter.path) for chapter in long], [str(chapter.path) for chapter in short]


def pytest(targets: list[str], environment: dict[str, str]) -> int:
    """The exit status of pytest with nbval, side by side by file: as many workers as there are cores for.

    The targets are begun in the order given.
    """
    workers = CORES // int(environment[VARIABLE])
    command = [*PYTEST, "-n", str(workers), *targets]
    return subprocess.call(command, cwd=ROOT, env={**os.environ, **environment})


def check_command(arguments: argparse.Namespace) -> int:
    """Check style, promotion and stored notebooks, without executing any."""
    from .chapters import all_chapters, all_notebooks
    from .ladder import ladder_problems
    from .promotion import check
    from .stored import problems, style_problems

    ruff = [sys.executable, "-m", "ruff"]
    styled = [subprocess.call([*ruff, *command], cwd=ROOT) for command in (["check"], ["format", "--check"])]
    found, chapters, notebooks = check(), all_chapters(), all_notebooks()
    for notebook in notebooks:
        found += problems(notebook.path)
    for chapter in chapters:
        found += style_problems(chapter)
    found += ladder_problems(chapters)
    print("\n".join(found) or f"{len(notebooks)} notebooks: promoted, in order, fit for regression")
    return int(any(styled) or bool(found))


def promote_command(arguments: argparse.Namespace) -> int:
    """Write lecture_lib/ from the exported cells of the notebooks."""
    from .promotion import check, promote

    if arguments.check:
        found = check()
        print("\n".join(found) or "library and notebooks agree")
        return int(bool(found))
    for path in promote():
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def refresh_command(arguments: argparse.Namespace) -> int:
    """Execute notebooks and store their normalised outputs."""
    from .kernels import own_kernels
    from .stored import refresh

    with own_kernels():
        for chapter in chosen(arguments.chapters, SOLUTIONS if arguments.solutions else NOTEBOOKS):
            print(f"executing {chapter.stem}", flush=True)
            refresh(chapter)
    return 0


def tidy_command(arguments: argparse.Namespace) -> int:
    """Take out of notebooks what an editor put in when it saved them; execute none."""
    from .chapters import all_notebooks
    from .stored import tidy

    for notebook in all_notebooks():
        if tidy(notebook.path):
            print(f"tidied {notebook.path.relative_to(ROOT)}")
    return 0


def ship_command(arguments: argparse.Namespace) -> int:
    """Put a finished run's model, at half precision, and its record into data/."""
    import torch

    from .records_page import renew
    from .shipping import ship

    torch.set_num_threads(CORES)
    print(f"wrote {ship(arguments.run, arguments.name, arguments.commit)}")
    renew()
    return 0


def seeds_command(arguments: argparse.Namespace) -> int:
    """Run a chapter once for each seed; record what came out in data/recorded."""
    from .chapters import find_chapter
    from .execution import run_chapters
    from .kernels import own_kernels
    from .ladder import record_seeds
    from .records_page import renew

    chapter, runs = find_chapter(arguments.chapter), []
    for seed in arguments.seeds:
        with own_kernels():
            (result,) = run_chapters([chapter], "cpu", {"seed": str(seed)})
        if result.losses is None:
            raise CourseError(f"{chapter.stem} records no training run; seeds are for a chapter that trains")
        runs.append(result.losses)
    command = f"lecture seeds {chapter.label} {' '.join(map(str, arguments.seeds))}"
    print(f"wrote {record_seeds(chapter.stem, runs, command).relative_to(ROOT)}")
    renew()
    return 0


if __name__ == "__main__":
    sys.exit(main())
