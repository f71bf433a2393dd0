//! Tokens good and bad. Each bad one is the good one with one thing changed.

use std::sync::{Arc, LazyLock};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::json;

use super::*;
use crate::auth::fixtures::tenant;
use crate::tenant::issuer::{KeySet, TokenAs};
use crate::tenant::{ClientAuth, User};

const NOW: u64 = 1_800_000_000;

/// One key pair of each kind.
struct Pair {
    algorithm: Algorithm,
    pair: KeyPair,
}

static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let made = |algorithm, kind| Pair { algorithm, pair: KeyPair::generate_for(kind).unwrap() };
    vec![
        made(Algorithm::EdDSA, &rcgen::PKCS_ED25519),
        made(Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
        made(Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384),
        made(Algorithm::RS256, &rcgen::PKCS_RSA_SHA256),
    ]
});

impl Pair {
    fn sign(&self, header: &Header, claims: &Value) -> String {
        let pem = self.pair.serialize_pem();
        let key = match self.algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        encode(header, claims, &key.unwrap()).unwrap()
    }
}

fn issuer(algorithms: &[Algorithm], scopes: &[&str]) -> Issuer {
    let pem: String = PAIRS.iter().map(|pair| pair.pair.public_key_pem()).collect();
    Issuer {
        name: "https://id.test/".into(),
        audiences: vec!["tenantry".into(), "other".into()],
        scopes: scopes.iter().map(|scope| Arc::from(*scope)).collect(),
        algorithms: algorithms.to_vec(),
        keys: KeySet::parse(&pem, algorithms).unwrap(),
        tenant_claim: "tenant".into(),
        user_claim: "sub".into(),
        leeway_s: 30,
        token_as: TokenAs::OauthBearer,
        ends_sessions: false,
    }
}

fn ours() -> Issuer {
    issuer(&[Algorithm::EdDSA, Algorithm::ES256, Algorithm::ES384, Algorithm::RS256], &[])
}

fn claims() -> Value {
    json!({ "iss": "https://id.test/", "aud": "tenantry", "exp": NOW + 60, "tenant": "acme", "sub": "reader" })
}

/// The claims with one of them changed; `null` takes it out.
fn changed(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().unwrap();
    if value.is_null() {
        map.remove(name)
    } else {
        map.insert(name.to_owned(), value)
    };
    claims
}

fn claim(auth: ClientAuth) -> Result<Identity, Refusal> {
    Ok(Identity::new(Arc::new(tenant("acme", &[])), User { name: "reader".into(), auth, mode: None }))
}

fn by_token() -> Result<Identity, Refusal> {
    claim(ClientAuth::Token("reader".into()))
}

fn ed(claims: &Value) -> String {
    PAIRS[0].sign(&Header::new(Algorithm::EdDSA), claims)
}

fn verdict(claims: &Value) -> Result<(), Refusal> {
    prove(by_token(), &ours(), &ed(claims), NOW).map(drop)
}

#[test]
fn a_token_of_each_algorithm_proves_its_user() {
    for pair in PAIRS.iter() {
        let token = pair.sign(&Header::new(pair.algorithm), &claims());
        for auth in
            [ClientAuth::Token("reader".into()), ClientAuth::ScramOrToken("x".into(), "reader".into())]
        {
            let proved = prove(claim(auth), &ours(), &token, NOW).unwrap();
            assert_eq!(
                (&**proved.user(), &*proved.tenant().name),
                ("reader", "acme"),
                "{:?}",
                pair.algorithm
            );
        }
        let others: Vec<_> =
            PAIRS.iter().map(|pair| pair.algorithm).filter(|one| *one != pair.algorithm).collect();
        let refused = prove(by_token(), &issuer(&others, &[]), &token, NOW).unwrap_err();
        assert_eq!(refused, Refusal::TokenAlgorithm, "{:?} is not accepted there", pair.algorithm);
    }
}

#[test]
fn every_claim_counts() {
    for (name, value, expected) in [
        ("iss", json!("https://id.test"), Err(Refusal::TokenIssuer)),
        ("iss", json!(["https://id.test/"]), Err(Refusal::TokenIssuer)),
        ("iss", Value::Null, Err(Refusal::TokenIssuer)),
        ("aud", json!("tenantry2"), Err(Refusal::TokenAudience)),
        ("aud", json!(["x", "y"]), Err(Refusal::TokenAudience)),
        ("aud", json!([]), Err(Refusal::TokenAudience)),
        ("aud", Value::Null, Err(Refusal::TokenAudience)),
        ("aud", json!(["x", "other"]), Ok(())),
        ("exp", json!(NOW - 29), Ok(())),
        ("exp", json!(NOW - 30), Err(Refusal::TokenExpired)),
        ("exp", json!(0), Err(Refusal::TokenExpired)),
        ("exp", json!(-1), Err(Refusal::TokenExpired)),
        ("exp", json!(f64::from(u32::MAX) + 0.5), Ok(())),
        ("exp", json!("1900000000"), Err(Refusal::TokenMalformed)),
        ("exp", Value::Null, Err(Refusal::TokenMalformed)),
        ("nbf", json!(NOW + 30), Ok(())),
        ("nbf", json!(NOW + 31), Err(Refusal::TokenNotYetValid)),
        ("nbf", json!("now"), Err(Refusal::TokenMalformed)),
        ("tenant", json!("beta"), Err(Refusal::TokenOfAnotherTenant)),
        ("tenant", json!(["acme"]), Err(Refusal::TokenOfAnotherTenant)),
        ("tenant", Value::Null, Err(Refusal::TokenOfAnotherTenant)),
        ("sub", json!("READER"), Err(Refusal::TokenOfAnotherUser)),
        ("sub", json!(""), Err(Refusal::TokenOfAnotherUser)),
        ("sub", Value::Null, Err(Refusal::TokenOfAnotherUser)),
    ] {
        assert_eq!(verdict(&changed(name, value.clone())), expected, "{name}: {value}");
    }
}

#[test]
fn all_scopes_are_needed() {
    let issuer = issuer(&[Algorithm::EdDSA], &["db", "db.write"]);
    for (scope, expected) in [
        (json!("openid db.write db"), Ok(())),
        (json!("db"), Err(Refusal::TokenScope)),
        (json!("dbdb.write"), Err(Refusal::TokenScope)),
        (Value::Null, Err(Refusal::TokenScope)),
    ] {
        let verdict = prove(by_token(), &issuer, &ed(&changed("scope", scope.clone())), NOW).map(drop);
        assert_eq!(verdict, expected, "{scope}");
    }
}

#[test]
fn signatures_that_anybody_could_make_are_none() {
    let good = ed(&claims());
    let body = good.split('.').nth(1).unwrap();
    // {"alg":"none"} and {"alg":"None"}.
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0"] {
        let refused = prove(by_token(), &ours(), &format!("{header}.{body}."), NOW).unwrap_err();
        assert_eq!(refused, Refusal::TokenMalformed);
    }
    // The public key, which everybody has, as a shared secret.
    for secret in [PAIRS[0].pair.public_key_pem().into_bytes(), PAIRS[0].pair.der_bytes().to_vec()] {
        let token =
            encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(prove(by_token(), &ours(), &token, NOW).unwrap_err(), Refusal::TokenAlgorithm);
    }
    let stranger = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let stranger = Pair { algorithm: Algorithm::EdDSA, pair: stranger };
    let forged = stranger.sign(&Header::new(Algorithm::EdDSA), &claims());
    assert_eq!(prove(by_token(), &ours(), &forged, NOW).unwrap_err(), Refusal::TokenSignature);
    let mixed = format!("{}.{}", good.rsplit_once('.').unwrap().0, forged.rsplit_once('.').unwrap().1);
    assert_eq!(prove(by_token(), &ours(), &mixed, NOW).unwrap_err(), Refusal::TokenSignature);
    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::EdDSA) };
    let refused = prove(by_token(), &ours(), &PAIRS[0].sign(&critical, &claims()), NOW).unwrap_err();
    assert_eq!(refused, Refusal::TokenMalformed, "an extension that we do not understand");
}

#[test]
fn a_key_with_a_name_is_meant_by_that_name() {
    let x = |pair: &Pair| {
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, pair.pair.der_bytes())
    };
    let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "new", "x": x(&PAIRS[0]) }] });
    let keys = KeySet::parse(&jwks.to_string(), &[Algorithm::EdDSA]).unwrap();
    let issuer = Issuer { keys, ..ours() };
    for (kid, expected) in [(Some("new"), Ok(())), (None, Ok(())), (Some("old"), Err(Refusal::TokenKey))] {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
        let verdict = prove(by_token(), &issuer, &PAIRS[0].sign(&header, &claims()), NOW).map(drop);
        assert_eq!(verdict, expected, "{kid:?}");
    }
    let other = PAIRS[1].sign(&Header::new(Algorithm::ES256), &claims());
    assert_eq!(prove(by_token(), &issuer, &other, NOW).unwrap_err(), Refusal::TokenKey);
}

#[test]
fn a_good_token_does_not_help_who_has_no_login_by_token() {
    for (claim, expected) in [
        (Err(Refusal::UnknownUser), Refusal::UnknownUser),
        (Err(Refusal::UnknownTenant), Refusal::UnknownTenant),
        (claim(ClientAuth::Scram("x".into())), Refusal::NoTokenUser),
        (claim(ClientAuth::Certificate { common_name: "reader".into() }), Refusal::NoTokenUser),
    ] {
        assert_eq!(prove(claim, &ours(), &ed(&claims()), NOW).unwrap_err(), expected);
    }
}

#[test]
fn first_messages_are_read_as_in_the_rfc() {
    for (message, expected) in [
        (&b"n,,\x01auth=Bearer abc.d-e_f~g+h/i==\x01\x01"[..], Some("abc.d-e_f~g+h/i==")),
        (b"y,,\x01host=x\x01port=5432\x01auth=bearer  abc\x01\x01", Some("abc")),
        (b"n,,\x01auth=\x01\x01", None),
        (b"n,,\x01auth=Bearer \x01\x01", Some("")),
    ] {
        assert_eq!(parse_initial(message), Ok(expected), "{}", message.escape_ascii());
    }
    for message in [
        &b""[..],
        b"n,,",
        b"n,,\x01\x01",
        b"n,,\x01auth=Bearer abc\x01",
        b"n,,\x01auth=Bearer abc\x01\x01\x01",
        b"n,a=root,\x01auth=Bearer abc\x01\x01",
        b"p=tls-exporter,,\x01auth=Bearer abc\x01\x01",
        b"n,,\x01host=x\x01\x01",
        b"n,,\x01auth=Basic abc\x01\x01",
        b"n,,\x01auth=abc\x01\x01",
        b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",
        b"n,,\x01nothing\x01auth=Bearer b\x01\x01",
        b"\xff,,\x01auth=Bearer b\x01\x01",
    ] {
        assert!(parse_initial(message).is_err(), "{}", message.escape_ascii());
    }
}

#[test]
fn a_client_is_told_where_to_get_a_token() {
    let url = "https://id.test/.well-known/openid-configuration";
    let told: Value =
        serde_json::from_str(&failure_challenge(&issuer(&[Algorithm::EdDSA], &["a", "b"]))).unwrap();
    assert_eq!(told, json!({ "status": "invalid_token", "openid-configuration": url, "scope": "a b" }));
    assert!(!failure_challenge(&ours()).contains("scope"));
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in ".{0,60}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,20}", 0..5)) {
        prop_assert!(prove(by_token(), &ours(), &text, NOW).is_err());
        prop_assert!(prove(by_token(), &ours(), &parts.join("."), NOW).is_err());
        let _ = parse_initial(text.as_bytes());
    }

    #[test]
    fn a_token_with_any_letter_changed_proves_nothing(at: prop::sample::Index, letter in "[A-Za-z0-9_.-]") {
        let token = ed(&claims());
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &letter);
        // The last letter of a part may hold bits that nobody reads, which a strict decoder refuses.
        prop_assert_eq!(prove(by_token(), &ours(), &changed, NOW).is_ok(), changed == token);
    }
}
