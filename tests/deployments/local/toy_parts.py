"""A supervisor with toy parts, run as a process of its own: python -m tests.deployments.local.toy_parts FOLDER CASE."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import typer

from deployments.local import supervisor
from deployments.local.parts import Part
from deployments.local.platform import prepare_data_folder


def alive(pid: int) -> bool:
    """A probe: the process is there."""
    return psutil.pid_exists(pid)


def part(name: str, code: str, *needs: str, healthy_file: Path | None = None, **options: object) -> Part:
    """A part that runs a line of Python; healthy at once, or when a file is there."""
    probe = (lambda _pid: healthy_file.exists()) if healthy_file else alive
    command = [sys.executable, "-c", code]
    return Part(name=name, command=command, environment={}, healthy=probe, needs=needs, **options)  # pyright: ignore[reportArgumentType]


def parts_of_case(case: str, folder: Path) -> list[Part]:
    """The parts for one test."""
    sleep = "import time; time.sleep(600)"
    match case:
        case "order":
            say = f"open({str(folder / 'order')!r}, 'a').write('{{}} '); import time; time.sleep(600)"
            return [
                part("second", say.format("second"), "first", "once"),
                part("first", say.format("first"), healthy_file=folder / "first-is-ready"),
                part("once", "print('done')", once=True),
            ]
        case "again":
            supervisor.FIRST_LOOK_SECONDS = 0.2
            runs, lost = folder / "runs", folder / "lost"
            code = f"open({str(runs)!r}, 'a').write('run '); import pathlib; "
            code += f"pathlib.Path({str(lost)!r}).unlink(missing_ok=True)"
            again = {"once": True, "wanted_again": lambda _since: lost.exists()}
            return [
                part("sleeper", sleep),
                part("first", code, **again),
                part("later", code, done_already=True, **again),
            ]
        case "never":
            return [part("broken", "print('the reason'); raise SystemExit(3)", healthy_file=folder / "never")]
        case "optional":
            supervisor.FIRST_PAUSE_SECONDS = 0.02
            code = "print('the reason'); raise SystemExit(3)"
            broken = part("broken", code, healthy_file=folder / "never", optional=True)
            return [broken, part("sleeper", sleep)]
        case "hanging":
            responds = folder / "responds"
            return [part("hangs", sleep, healthy_file=responds, silent_seconds=0.4), part("sleeper", sleep)]
        case "stubborn":
            deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {sleep}"
            return [part("deaf", deaf, stop_seconds=0.5), part("sleeper", sleep, niceness=10)]
        case _:
            return [part("sleeper", sleep, niceness=10), part("other", sleep, "sleeper", stop_signal=signal.SIGINT)]


if __name__ == "__main__":
    data_folder = Path(sys.argv[1])
    prepare_data_folder(data_folder)
    supervisor.Supervisor(
        data_folder,
        parts_of_case(sys.argv[2], data_folder),
        lambda name, line: typer.echo(f"{name} | {line}"),
    ).run(lambda seconds: typer.echo(f"healthy after {seconds:.1f} s"))
