use super::*;

const GCM_KEY: &str = "000102030405060708090a0b0c0d0e0f10111213";

#[test]
fn the_documented_form() {
    let keys = parse_key_file(&format!("3+ rfc4106(gcm(aes)) {GCM_KEY} 128\n")).unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].index.get(), 3);
    assert_eq!(
        keys[0].algorithm,
        Algorithm::Aead(Aead::AesGcm(AesKey::Aes128, IcvLen::Icv16))
    );
    let KeySecrets::Aead(secret) = &keys[0].secrets else {
        panic!("{keys:?}")
    };
    assert_eq!(secret.expose(), (0..20).collect::<Vec<u8>>());
}

#[test]
fn several_lines_prefixes_and_other_algorithms() {
    let (a, b, c) = ("ab".repeat(36), "cd".repeat(32), "ef".repeat(24));
    let text = format!(
        "1 rfc4106(gcm(aes)) 0x{a} 96\n\n2 rfc7539esp(chacha20,poly1305) {a} 128\n15 hmac(sha256) 0x{b} cbc(aes) {c}\n"
    );
    let keys = parse_key_file(&text).unwrap();
    let algorithms: Vec<String> = keys.iter().map(|key| key.algorithm.to_string()).collect();
    assert_eq!(
        algorithms,
        [
            "aes-256-gcm-12",
            "chacha20-poly1305",
            "aes-192-cbc-hmac-sha256-96"
        ]
    );
}

#[test]
fn mistakes_name_line_and_field_and_never_the_key() {
    let key = GCM_KEY;
    for (text, expected) in [
        ("".to_owned(), "line 1: no key is in the file"),
        (
            format!("0 rfc4106(gcm(aes)) {key} 128"),
            "spi: key index: 0, expected 1 to 15",
        ),
        (format!("16 rfc4106(gcm(aes)) {key} 128"), "spi: key index: 16"),
        (format!("x rfc4106(gcm(aes)) {key} 128"), "spi: expected a number"),
        (
            format!("-1 rfc4106(gcm(aes)) {key} 128"),
            "spi: expected a number",
        ),
        (
            format!("1 rfc4106(gcm(aes)) {key} 64"),
            "icv: expected 96, 128 or 256 bits",
        ),
        (
            format!("1 rfc4106(gcm(aes)) {key} 256"),
            "icv: 256 bits are not possible",
        ),
        (
            format!("1 rfc4106(gcm(aes)) {key}00 128"),
            "key: 21 bytes, expected 20, 28 or 36",
        ),
        (
            format!("1 rfc4106(gcm(aes)) {key}0 128"),
            "key: expected an even number",
        ),
        (
            format!("1 rfc4106(gcm(aes)) {} 128", &key[1..].replace('0', "z")),
            "key: expected an even number",
        ),
        ("1 rfc4106(gcm(aes)) \"\" 128".to_owned(), "key: 0 bytes"),
        (
            format!("1 rfc4309(ccm(aes)) {key} 128"),
            "algorithm: \"rfc4309(ccm(aes))\" is not supported",
        ),
        (
            format!("1 gcm(aes) {key} 128"),
            "algorithm: \"gcm(aes)\" is not supported",
        ),
        (
            format!("1 {key} rfc4106(gcm(aes)) 128"),
            "algorithm: \"(hexadecimal digits)\"",
        ),
        (format!("1 rfc4106(gcm(aes))  {key} 128"), "line 1: "),
        (
            format!("1 hmac(md5) {key} cbc(aes) {key}"),
            "\"hmac(md5)\" is not supported",
        ),
        (
            format!("1 hmac(sha256) {key} cbc(aes) {key}"),
            "key: 20 bytes, expected 32 for hmac(sha256)",
        ),
        (
            format!("1 hmac(sha256) {} cbc(des) {key}", "00".repeat(32)),
            "cipher: \"cbc(des)\"",
        ),
        ("1 a b".to_owned(), "3 fields, expected 4"),
        (
            format!("1 rfc4106(gcm(aes)) {key} 128\n1+ rfc4106(gcm(aes)) {key} 128"),
            "line 2: spi 1 is there twice",
        ),
    ] {
        let error = parse_key_file(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
        assert!(!error.contains(key), "{error}");
    }
    let keys = parse_key_file(&format!("3 rfc4106(gcm(aes)) {key} 128")).unwrap();
    let shown = format!("{keys:?} {}", keys[0]);
    assert!(!shown.contains("01, ") && !shown.contains(&key[..8]), "{shown}");
}
