"""Addresses as readers type them: what is kept, what is shown, and which field a refusal names."""

from __future__ import annotations

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.notifications import address_forms as forms


def test_an_address_is_kept_whole_and_shown_without_what_is_secret() -> None:
    email = forms.EMAIL_ADDRESS.read(forms.EmailWish(address="Ann@Example.com"))
    assert email == forms.Address(text="Ann@example.com", shown="A…@example.com")
    hook = forms.WEB_ADDRESS.read(forms.WebhookWish(url="https://hooks.example.com/secret"))
    assert hook == forms.Address(text="https://hooks.example.com/secret", shown="https://hooks.example.com/…")


def test_a_pattern_makes_a_form() -> None:
    phone = forms.text_address(r"\+[0-9]{7,15}", "+4930123456")
    assert phone.read(forms.TextWish(address="+4930123456")) == forms.Address(text="+4930123456", shown="+49…")
    for wrong in ("+4930123456\n", "x+4930123456", "0301234567"):
        with pytest.raises(InvalidRequest) as refused:
            phone.read(forms.TextWish(address=wrong))
        assert refused.value.fields == {"address": "must be like this: +4930123456"}


@pytest.mark.parametrize(
    ("form", "wish", "field"),
    [
        (forms.EMAIL_ADDRESS, forms.EmailWish(address="ann"), "address"),
        (forms.WEB_ADDRESS, forms.WebhookWish(url="http://hooks.example.com/"), "url"),
        (forms.CHAT_ADDRESS, forms.ChatWish(url="json://10.0.0.1/"), "url"),
    ],
)
def test_a_refusal_names_the_field(form: forms.AnyForm, wish: msgspec.Struct, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        form.read(wish)
    assert list(refused.value.fields) == [field]
