"""A server with a certificate made for the purpose, looked at by sslyze.

The certificate is as a public authority would make it: ECDSA, for one name, for 90 days.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import trustme

SCRIPTS = Path(sysconfig.get_path("scripts"))
PATIENCE = 300
CHECKS = (
    "sslv2",
    "sslv3",
    "tlsv1",
    "tlsv1_1",
    "tlsv1_2",
    "tlsv1_3",
    "certinfo",
    "compression",
    "early_data",
    "elliptic_curves",
    "ems",
    "fallback",
    "heartbleed",
    "openssl_ccs",
    "reneg",
    "robot",
)
OLD = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")


def main() -> int:
    """Print what was found; 0 if all of it is as it should be."""
    with tempfile.TemporaryDirectory(prefix="dataflow-serve-tls-") as name:
        directory = Path(name)
        certificate, authority = make_certificate(directory)
        options = ["--listen", "127.0.0.1:0", "--tls-certificate", str(certificate)]
        command = [sys.executable, str(SCRIPTS / "dataflow-serve"), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                port = server.stdout.readline().rsplit(":", 1)[1].strip()
                return look(port, authority, directory / "found.json")
            finally:
                server.terminate()


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """The server's file, and its authority's."""
    ca = trustme.CA()
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    issued = ca.issue_cert("localhost", not_before=now - day, not_after=now + 89 * day)
    certificate, authority = directory / "server.pem", directory / "ca.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    ca.cert_pem.write_to_path(str(authority))
    return certificate, authority


def look(port: str, authority: Path, found: Path) -> int:
    """Run sslyze, and judge what it says."""
    checks = [f"--{check}" for check in CHECKS]
    target = f"localhost:{port}"
    command = [SCRIPTS / "sslyze", *checks, "--certinfo_ca_file", authority, "--mozilla_config=intermediate"]
    run = subprocess.run(
        [*command, f"--json_out={found}", target], capture_output=True, text=True, timeout=PATIENCE
    )
    results = json.loads(found.read_text(encoding="utf-8"))["server_scan_results"][0]["scan_result"]
    faults = [*judge(results)]
    _, _, compliance = run.stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")
    remarks = [line.strip("* ") for line in compliance.splitlines() if line.strip().startswith("* ")]
    if not compliance:
        faults.append(f"no verdict of sslyze:\n{run.stdout}{run.stderr}")
    # Nobody's list of authorities has one that was made a second ago.
    faults += [remark for remark in remarks if not remark.startswith("certificate_path_validation")]
    print(f"against Mozilla's intermediate configuration: {remarks or 'compliant'}")
    print(*(f"fault: {fault}" for fault in faults), sep="\n")
    return 1 if faults else 0


def judge(results: dict[str, dict[str, object]]) -> list[str]:
    """What sslyze found that shouldn't be, or didn't find that should."""
    faults = []

    def result(name: str) -> dict[str, object]:
        body = results[name]
        if body["status"] != "COMPLETED":
            faults.append(f"{name}: {body['status']} ({body.get('error_reason')})")
            return {}
        answer = body["result"]
        assert isinstance(answer, dict)
        return answer

    for version in (*OLD, "tls_1_2", "tls_1_3"):
        accepted = result(f"{version}_cipher_suites").get("accepted_cipher_suites", [])
        assert isinstance(accepted, list)
        names = [suite["cipher_suite"]["name"] for suite in accepted]
        print(f"{version}: {', '.join(names) or 'refused'}")
        if bool(names) == (version in OLD):
            faults.append(f"{version}: {names}")
    for name, field, wanted in (
        ("tls_compression", "supports_compression", False),
        ("tls_1_3_early_data", "supports_early_data", False),
        ("heartbleed", "is_vulnerable_to_heartbleed", False),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", False),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", False),
        ("session_renegotiation", "supports_secure_renegotiation", True),
        ("tls_extended_master_secret", "supports_ems_extension", True),
        ("robot", "robot_result", "NOT_VULNERABLE_RSA_NOT_SUPPORTED"),
    ):
        is_so = result(name).get(field)
        print(f"{name}: {field} is {is_so}")
        if is_so != wanted:
            faults.append(f"{name}: {field} is {is_so}, not {wanted}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
