use proptest::prelude::*;

use super::*;

fn base(url: &str) -> Base {
    Base::parse("main", url).unwrap()
}

#[test]
fn challenges_are_read_as_they_are_meant() {
    let of = |realm: &str, service: Option<&str>| {
        Some(Challenge { realm: realm.to_owned(), service: service.map(str::to_owned) })
    };
    let table = [
        (r#"Bearer realm="https://a/t",service="s""#, of("https://a/t", Some("s"))),
        (r#"bearer  service = s , realm = "https://a/t" "#, of("https://a/t", Some("s"))),
        (r#"Basic realm="b", Bearer realm="https://a/t""#, of("https://a/t", None)),
        (r#"Bearer realm="https://a/t", Basic realm="b""#, of("https://a/t", None)),
        (r#"Negotiate, Bearer realm="https://a/t",scope="x y,z""#, of("https://a/t", None)),
        (r#"Bearer realm="https://a/\"t\\""#, of(r#"https://a/"t\"#, None)),
        (r#"Basic realm="b""#, None),
        (r#"Basic realm="Bearer realm=x""#, None),
        (r#"Bearer service="s""#, None),
        (r#"Bearer realm="https://a"#, None),
        ("Bearer", None),
        ("", None),
    ];
    for (header, want) in table {
        assert_eq!(challenge(header), want, "{header}");
    }
}

#[test]
fn a_credential_stays_with_the_registry_and_its_neighbours() {
    let table = [
        ("https://registry.example", "https://registry.example/token", true),
        ("https://registry.example:5000", "https://registry.example/token", true),
        ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
        ("https://quay.example", "https://auth.quay.example/token", true),
        ("https://registry.example", "https://example/token", false),
        ("https://registry.example", "https://evil.example/token", false),
        ("https://registry-1.docker.io", "https://evildocker.io/token", false),
        ("https://registry-1.docker.io", "https://docker.io.evil.example/", false),
        ("https://10.0.0.1", "https://1.0.0.1/token", false),
        ("https://registry", "https://evil/token", false),
        ("http://registry.corp.example", "https://auth.corp.example/token", false),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
        ("http://127.0.0.1:5000", "http://localhost:5001/token", false),
    ];
    for (registry, realm, want) in table {
        assert_eq!(base(registry).realm(realm, true).is_ok(), want, "{registry}: {realm}");
        assert!(base(registry).realm(realm, false).is_ok(), "{registry}: {realm}");
    }
}

#[test]
fn nobody_is_led_out_of_tls_or_to_no_url() {
    for realm in [
        "http://registry.example/token",
        "file:///etc/passwd",
        "token",
        "https://u:p@registry.example",
    ] {
        assert!(base("https://registry.example").realm(realm, false).is_err(), "{realm}");
    }
}

#[test]
fn a_token_is_one_that_a_header_can_have() {
    assert_eq!(token(br#"{"token":"a"}"#).unwrap(), "a");
    assert_eq!(token(br#"{"access_token":"b","expires_in":60}"#).unwrap(), "b");
    assert_eq!(token(br#"{"token":"","access_token":"b"}"#).unwrap(), "b");
    for bad in [&br#"{}"#[..], b"", b"[]", br#"{"token":"a\nb"}"#, br#"{"token":"\u00e4"}"#] {
        assert!(token(bad).is_err(), "{}", bad.escape_ascii());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a registry writes there, it is read or passed over; and where
    /// it leads, a credential goes to the registry's own domain alone.
    #[test]
    fn any_challenge_is_read_or_passed_over(
        parts in proptest::collection::vec(prop_oneof![
            Just("Bearer ".to_owned()), Just("Basic ".to_owned()), Just("realm=".to_owned()),
            Just("\"https://auth.corp.example/t\"".to_owned()), Just("\"".to_owned()),
            Just(",".to_owned()), Just("service=".to_owned()), "\\PC{0,6}", "[ -~]{0,12}",
        ], 0..10),
    ) {
        if let Some(challenge) = challenge(&parts.concat()) {
            prop_assert!(!challenge.realm.is_empty());
            if let Ok(url) = base("https://registry.corp.example").realm(&challenge.realm, true) {
                let host = url.host_str().unwrap();
                prop_assert!(host == "corp.example" || host.ends_with(".corp.example"), "{}", url);
                prop_assert_eq!(url.scheme(), "https");
            }
        }
    }

    #[test]
    fn any_answer_of_a_token_service_is_read_or_refused(bytes in any::<Vec<u8>>(), text in "\\PC{0,40}") {
        let _ = token(&bytes);
        let json = serde_json::json!({"token": text}).to_string();
        if let Ok(token) = token(json.as_bytes()) {
            let header = http::HeaderValue::try_from(format!("Bearer {token}"));
            prop_assert!(header.is_ok());
        }
    }
}
