"""TLS on the client's side: whom to trust, and what went wrong in words that help."""

from __future__ import annotations

import os
import ssl

from dataflow_serve.errors import DataflowError, ForbiddenError, LocalProtocolError, UnavailableError

__all__ = ["client_context", "explain_tls"]


def client_context(
    ca: str | os.PathLike[str] | None = None, certificate: str | os.PathLike[str] | None = None
) -> ssl.SSLContext:
    """A context that trusts the system's authorities, or those in ``ca``; for ``ssl_context``.

    Args:
        ca: File with the authorities' certificates, or the server's own, as PEM.
        certificate: File with this client's certificate and its key, as PEM, for servers that want one.

    Raises:
        LocalProtocolError: a file can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        # Whoever names a certificate trusts that one, though it has an authority above it that isn't named.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if certificate is not None:
            context.load_cert_chain(certificate)
    except (OSError, ssl.SSLError) as error:
        file = ca if certificate is None else certificate
        reason = error.strerror or str(error)
        raise LocalProtocolError(
            f"cannot use the certificates in {os.fspath(file or '')!r}: {reason}", "Give a file of PEM."
        ) from error
    return context


def explain_tls(where: str, error: ssl.SSLError) -> DataflowError:
    """What a failure of TLS means for whoever tried to connect."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnavailableError(
            f"cannot trust the server at {where}: {error.verify_message}",
            "Name the authority of its certificate (--ca FILE, or ssl_context=), or use the name that the "
            "certificate is for.",
        )
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING"):
        return UnavailableError(
            f"the server at {where} speaks no TLS: {_words(reason)}",
            "Connect with df:// or ws://, or give the server a certificate.",
        )
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return ForbiddenError(
            f"the server at {where} wants another certificate of this client: {_words(reason)}",
            "Give one that it knows (--client-certificate FILE, or ssl_context=).",
        )
    return UnavailableError(f"TLS with the server at {where} failed: {_words(reason)}")


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()
