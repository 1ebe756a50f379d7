"""Runs every snippet of deploy/turms/README.md: shell and Python against the stand-in and a real
server, YAML through the binary or a parser, JavaScript with LiveKit's own package."""

import os
import pathlib
import re
import shutil
import subprocess

from harness.server import binary

ROOT = pathlib.Path(__file__).resolve().parents[3]
GUIDE = ROOT / "deploy" / "turms" / "README.md"
CLIENTS = ROOT / "tests" / "clients"
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text(), re.M | re.S)
PEM = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo
4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0/IzW7yWR7QkrmBL7jTKEn5u
+qKhbwKfBstIs+bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyeh
kd3qqGElvW/VDL5AaWTg0nLVkjRo9z+40RQzuVaE8AkAFmxZzow3x+VJYKdjykkJ
0iT9wCS0DRTXu269V264Vf/3jvredZiKRkgwlL9xNAwxXFg0x/XFw005UWVRIKdg
cKWTjpBP2dPwVZ4WWC+9aGVd+Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbc
mwIDAQAB
-----END PUBLIC KEY-----
"""


def snippets(language, containing):
    found = [text for kind, text in SNIPPETS if kind == language and containing in text]
    assert len(found) == 1, f"{len(found)} snippets of {language} with {containing!r}"
    return found[0]


def run(command, environment, directory):
    done = subprocess.run(
        command, env=os.environ | environment, cwd=directory, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell(text, world, directory):
    """The snippet with the ports of the test."""
    text = text.replace(":8510", f":{world.turms['admin']}").replace(":7880", f":{world.server.port}")
    return run(["bash", "-euo", "pipefail", "-c", text], {"TURMS_JWT": world.user_jwt(7)}, directory)


def group_42(world):
    world.script(
        {"op": "group", "id": 42}, {"op": "member", "group": 42, "user": 7, "role": "MEMBER"}
    )


def test_all_snippets_are_known():
    kinds = [kind for kind, _ in SNIPPETS]
    assert sorted(kinds) == ["js", "python", "sh", "sh", "sh", "sh", "yaml", "yaml"]


def test_the_service_account_is_made(world, tmp_path):
    shell(snippets("sh", "/admins/roles"), world, tmp_path)
    state = world.state()
    assert state["refused"] == []
    assert state["roles"]["100"] == [
        "GROUP_QUERY",
        "GROUP_TYPE_QUERY",
        "GROUP_MEMBER_QUERY",
        "GROUP_BLOCKLIST_QUERY",
        "CLIENT_BLOCKLIST_QUERY",
        "MESSAGE_CREATE",
    ]
    assert state["admins"] == {"sfu": [100]}


def test_the_configuration_is_good(tmp_path):
    text = snippets("yaml", "# sluice.yaml").replace("/etc/sluice", str(tmp_path))
    (tmp_path / "turms-jwt.pem").write_text(PEM)
    (tmp_path / "turms-password").write_text("sfu-password\n")
    (tmp_path / "turms-events.secret").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "sluice.yaml").write_text(text)
    out = run([binary(), "--config", "sluice.yaml", "config", "check"], {}, tmp_path)
    assert "valid" in out


def test_the_turms_property_is_the_one_that_matters():
    assert "policy: USER_INPUT_OPTIONAL" in snippets("yaml", "application.yaml")


def test_the_plugin_is_prepared_and_its_secret_fits(world, tmp_path):
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    shell(snippets("sh", "sluice-turms-plugin.js"), world, tmp_path)
    secret = (tmp_path / "turms-events.secret").read_text().strip()
    assert len(secret) == 32
    prepared = (tmp_path / "sluice-turms-plugin.js").read_text()
    assert f"const SECRET = '{secret}';" in prepared
    assert f"const SLUICE_URL = '{world.http}';" in prepared
    shutil.copy(tmp_path / "sluice-turms-plugin.js", tmp_path / "plugin.mjs")
    run(["node", "--check", "plugin.mjs"], {}, tmp_path)


def test_a_client_gets_a_token_and_a_roster(world, tmp_path):
    group_42(world)
    out = shell(snippets("sh", "/turms/v1/token"), world, tmp_path)
    assert '"room_name":"turms:g:42"' in out
    assert '"participants":[]' in out


def test_the_python_client_joins(world, tmp_path):
    group_42(world)
    (tmp_path / "client.py").write_text(snippets("python", "participant_token"))
    environment = {"SLUICE": world.http, "TURMS_JWT": world.user_jwt(7)}
    python = CLIENTS / ".venv" / "bin" / "python"
    out = run([str(python), "client.py"], environment, tmp_path)
    assert "joined as 7" in out


def test_livekits_token_source_fetches(world):
    group_42(world)
    source = snippets("js", "TokenSource")
    script = f"""
import {{ TokenSource }} from 'livekit-client';
const sluice = {world.http!r}, turmsJwt = {world.user_jwt(7)!r};
{source}
console.log(JSON.stringify(answer));
"""
    out = run(["node", "--input-type=module", "-e", script], {}, CLIENTS)
    assert "ws://127.0.0.1" in out and "articipantToken" in out


def test_health_says_that_all_is_well(world, tmp_path):
    out = shell(snippets("sh", "/turms/v1/health"), world, tmp_path)
    assert '"status":"ok"' in out
