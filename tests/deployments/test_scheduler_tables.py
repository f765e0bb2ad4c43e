"""The tables of the page of schedulers, from the records that requests are checked by."""

from __future__ import annotations

from deployments import scheduler_tables
from storage.records.generation.scheduler_table import SCHEDULERS


def test_every_scheduler_has_a_row_with_its_price_and_one_with_its_names() -> None:
    priced, named = scheduler_tables.schedulers().splitlines(), scheduler_tables.names().splitlines()

    assert len(priced) == len(named) == 2 + len(SCHEDULERS)
    assert "| `heun` | Heun |" in "\n".join(priced)
    assert any("2 a step" in row for row in priced if "`dpmpp_sde`" in row)
    assert any("| 1 a step, at most 50 steps | yes |" in row for row in priced if "`lcm`" in row)
    assert "| `dpmpp_3m` | `DPMSolverMultistepScheduler` with `solver_order=3` |" in "\n".join(named)


def test_a_spacing_says_what_it_is_not_for() -> None:
    [karras] = [row for row in scheduler_tables.spacings().splitlines() if "`karras`" in row]

    assert karras.endswith("| DDIM, DDPM, PLMS, LCM, TCD |")


def test_what_is_left_out_is_grouped_by_its_reason() -> None:
    rows = scheduler_tables.left_out().splitlines()

    assert "| `Restart` | diffusers has none | Heun Karras |" in rows
    assert any("`FlowMatchEulerDiscreteScheduler`, `FlowMatchHeun" in row and "predict a flow" in row for row in rows)
