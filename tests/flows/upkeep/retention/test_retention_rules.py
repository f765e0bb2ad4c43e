"""Every table, setting and line of the document has its rule."""

from __future__ import annotations

import pytest

from flows.upkeep.retention.retention_rules import RULES, document, table_rules, variable
from storage.errors import InvalidSettings
from storage.postgres.upkeep import retention
from storage.settings import RetentionSettings, load_settings
from storage.stores import Stores
from tests.flows.upkeep.retention.test_retention import DOCUMENT


def test_every_table_has_one_rule_and_every_rule_a_table(stores: Stores) -> None:
    tables = stores.database.run(retention.tables())
    assert {table: len(table_rules(table)) for table in tables if len(table_rules(table)) != 1} == {}
    named = {pattern for rule in RULES for pattern in rule.tables if "*" not in pattern}
    assert named <= set(tables)


def test_the_document_holds_the_table() -> None:
    assert "\n".join(document()) in DOCUMENT.read_text()


def test_every_setting_of_a_rule_is_one_and_every_setting_has_a_rule() -> None:
    settings = load_settings()
    for rule in RULES:
        if rule.setting:
            group, name = rule.setting.split(".")
            assert hasattr(getattr(settings, group), name), rule.setting
    used = {rule.setting.removeprefix("retention.") for rule in RULES}
    assert set(RetentionSettings.model_fields) - {"mlflow_store_url"} <= used


@pytest.mark.parametrize("name", [name for name in RetentionSettings.model_fields if name != "mlflow_store_url"])
def test_a_setting_of_0_is_refused_with_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("0", "-1"):
        monkeypatch.setenv(variable(f"retention.{name}"), wrong)
        large = "set 36500 days" if name.endswith("_days") else f"set more {name[-3:]} than the disk has"
        with pytest.raises(InvalidSettings, match=rf"(?i){name.upper()}: it is {wrong}, and the least is .*{large}"):
            load_settings()
