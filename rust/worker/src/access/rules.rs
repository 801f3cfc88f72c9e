//! What is configured of who may do what.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::grant::Grant;

/// What a client may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and subscribes.
    Reader,
    /// Registers programs and transacts.
    Writer,
    /// Tunes and stops the cluster.
    Admin,
}

impl Role {
    /// Its name in settings and messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Writer => "writer",
            Role::Admin => "admin",
        }
    }
}

/// The SHA-256 of a token. Tokens are long random texts, for which a fast hash is as good as a slow one.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// How digests are written.
const PREFIX: &str = "sha256:";

impl Digest {
    /// Of a token as the client gives it.
    pub fn of(token: &str) -> Self {
        Digest(Sha256::digest(token.as_bytes()).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Digest(…)")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.iter().fold(PREFIX.to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || "a token's hash is `sha256:` and 64 hexadecimal digits".to_owned();
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 64 && digits.is_ascii());
        let digits = digits.ok_or_else(wrong)?.as_bytes();
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Digest(digest))
    }
}

/// A token and what its holder may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What it is called in settings and logs.
    #[serde(default)]
    pub name: String,
    /// The token's digest; the token itself is nowhere on the server.
    pub hash: Digest,
    /// What its holder may do.
    pub role: Role,
    /// To which relations; all where absent. A name that ends in `*` stands for all that begin so.
    #[serde(default)]
    pub relations: Option<Vec<String>>,
}

/// From where messages that aren't encrypted are taken, where there is a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plaintext {
    /// From nowhere.
    Never,
    /// From this machine.
    Loopback,
    /// From everywhere; so it is, too, where there is no certificate.
    #[default]
    Always,
}

/// Who may do what. Python fills it in; it can be replaced while the server runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Tokens. Without any, everybody may do everything.
    pub tokens: Vec<Token>,
    /// Names by which browsers may call this server, besides `localhost` and addresses; `*` for any.
    pub hosts: Vec<String>,
    /// Origins of pages that may open WebSockets, besides the server's own; `*` for any.
    pub origins: Vec<String>,
    /// From where connections without TLS are taken.
    pub plaintext: Plaintext,
}

impl Rules {
    /// No token is needed.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// What the token with that digest is good for. Takes the same time whichever it is, and for none.
    pub(crate) fn grant(&self, digest: &Digest) -> Option<Arc<Grant>> {
        let mut found = u64::MAX;
        for (index, token) in (0u64..).zip(&self.tokens) {
            let equal: Choice = token.hash.0.ct_eq(&digest.0);
            found.conditional_assign(&index, equal);
        }
        let token = self.tokens.get(usize::try_from(found).ok()?)?;
        Some(Arc::new(Grant {
            digest: Some(token.hash),
            role: token.role,
            relations: token.relations.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha_256_in_hexadecimal() {
        // The first example of FIPS 180-2.
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(String::from(Digest::of("abc")), text);
        assert_eq!(Digest::try_from(text.to_owned()), Ok(Digest::of("abc")));
        for wrong in ["", "sha256:", "md5:00", &text[..70], &text.replace('a', "g"), &text.replace("ba", "é")]
        {
            assert!(Digest::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rules_say_nothing_of_tokens_when_they_are_printed() {
        let rules =
            serde_json::json!({"tokens": [{"hash": String::from(Digest::of("abc")), "role": "reader"}]});
        let rules: Rules = serde_json::from_value(rules).unwrap();
        assert!(!format!("{rules:?}").contains("ba78"));
        assert!(serde_json::from_str::<Rules>(r#"{"token": []}"#).is_err());
    }
}
