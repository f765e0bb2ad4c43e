"""Addresses of chat services: the closed list, and everything that only looks like it."""

from __future__ import annotations

import pytest

from storage.errors import AddressRefused
from storage.records.notifications.chat import HOSTS, Service, read_chat_address

REFUSED = [
    "",
    "discord",
    "discord://",
    "discord://123",
    "discord://127.0.0.1/token",
    "discord://localhost/token",
    "discord://١٢٣/token",
    "discord://123/token/more",
    "discord://123/../token",
    "discord://123/to%2Fken",
    "discord://123/token?template=file:///etc/passwd",
    "discord://123/token?verify=no",
    "discord://123/token?avatar_url=https://10.0.0.1/",
    "discord://123/token#fragment",
    "discord://bot@123/token",
    "discord://123/token\n",
    "discord://123/token, json://127.0.0.1/",
    "DISCORD://123/token",
    "https://discord.com.evil.example/api/webhooks/123/token",
    "https://discord.com@evil.example/api/webhooks/123/token",
    "https://discordXcom/api/webhooks/123/token",
    "http://discord.com/api/webhooks/123/token",
    "https://discord.com/api/webhooks/123/token?wait=true",
    "slack://TokenA/TokenB",
    "slack://TokenA/TokenB/TokenC/#general",
    "slack://botname@TokenA/TokenB/TokenC",
    "slack://xoxb-1234-1234-abc",
    "https://hooks.slack.com/workflows/A/B/C/D",
    "https://hooks.slack.com.evil.example/services/A/B/C",
    "tgram://123:token",
    "tgram://token/123",
    "tgram://123:token/-",
    "tgram://123:token/1/2",
    "gchat://space/key",
    "gchat://../key/token",
    "https://chat.googleapis.com/v1/spaces/space/messages?key=key&token=token&threadKey=x",
    "https://chat.googleapis.com/v1/spaces/space/messages?token=token&key=key",
    "file:///etc/passwd",
    "json://127.0.0.1/",
    "jsons://hooks.example.com/",
    "xml://hooks.example.com/",
    "form://hooks.example.com/",
    "apprise://hooks.example.com/token",
    "mattermost://chat.example.com/token",
    "rocket://user:password@chat.example.com/room",
    "matrix://user:password@matrix.example.com/room",
    "ntfy://ntfy.example.com/topic",
    "mailto://user:password@example.com",
    "syslog://",
    "dbus://",
    "windows://",
    "https://hooks.example.com/",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_has_a_host_a_path_or_options_is_refused_with_what_is_allowed(text: str):
    with pytest.raises(AddressRefused, match="without options") as refusal:
        read_chat_address(text)
    assert all(service in str(refusal.value) for service in Service)


@pytest.mark.parametrize(
    ("text", "service", "parts"),
    [
        ("discord://123/to-k_en", "Discord", {"webhook_id": "123", "webhook_token": "to-k_en"}),
        ("https://discordapp.com/api/webhooks/12/t", "Discord", {"webhook_id": "12", "webhook_token": "t"}),
        ("https://hooks.slack.com/services/T0/B0/x1", "Slack", {"token_a": "T0", "token_b": "B0", "token_c": "x1"}),
        ("tgram://1:a-b/-100", "Telegram", {"bot_token": "1:a-b", "targets": "-100"}),
        (
            "https://chat.googleapis.com/v1/spaces/s/messages?key=k&token=t%3D",
            "Google Chat",
            {"workspace": "s", "webhook_key": "k", "webhook_token": "t="},
        ),
    ],
)
def test_a_services_own_link_is_read_and_shown_without_its_secrets(text: str, service: str, parts: dict[str, str]):
    address = read_chat_address(text)
    assert (address.service, address.parts) == (service, parts)
    assert address.shown == f"https://{HOSTS[Service(service)]}/…"
