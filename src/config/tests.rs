#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn sample() -> Config {
    let mut config = Config::new(Uuid::from_u128(7), Size(2 << 40));
    config.cold = Some("s3://bucket/prefix".parse().unwrap());
    config.cold_capacity = Some(Size(100 << 40));
    config.hot = PathBuf::from("/nvme/a \"b\"");
    config.metrics = Some("127.0.0.1:9464".parse().unwrap());
    config
}

#[test]
fn what_is_written_reads_back() {
    let config = sample();
    assert_eq!(Config::parse(&config.render()).unwrap(), config);
    let local = Config::new(Uuid::from_u128(8), MIN_HOT_CAPACITY);
    assert_eq!(Config::parse(&local.render()).unwrap(), local);
}

#[test]
fn every_field_is_written() {
    let refused = toml::from_str::<Config>("no_such_key = 1").unwrap_err().message().to_owned();
    let known: Vec<&str> = refused.split('`').skip(3).step_by(2).collect();
    assert_eq!(known.len(), 20, "{refused}");
    let text = Config::new(Uuid::nil(), Size(1 << 40)).render();
    for key in known {
        let at_line_start = |line: &str| line.trim_start_matches('#').starts_with(key);
        assert!(text.lines().any(at_line_start), "{key} is not explained");
    }
}

#[test]
fn a_typo_is_refused_with_its_line() {
    let text = sample().render().replace("hot_capacity", "hot_capcity");
    let line = text.lines().position(|line| line.starts_with("hot_capcity")).unwrap() + 1;
    let said = Config::parse(&text).unwrap_err().to_string();
    assert!(
        said.starts_with(&format!("firn.toml line {line}: unknown field `hot_capcity`")),
        "{said}"
    );
}

#[test]
fn a_bad_unit_is_refused_with_its_line() {
    let text = sample().render().replace("\"15m\"", "\"15 parsecs\"");
    let line = text.lines().position(|line| line.starts_with("backup_interval")).unwrap() + 1;
    let said = Config::parse(&text).unwrap_err().to_string();
    assert!(said.contains(&format!("line {line}: unknown unit `parsecs`")), "{said}");
}

#[test]
fn a_newer_format_is_refused_before_its_unknown_keys() {
    let text = format!("format = {}\nmarvel = true\n", FORMAT + 1);
    assert!(matches!(Config::parse(&text), Err(ConfigError::TooNew { .. })));
}

#[test]
fn values_that_make_no_sense() {
    let mut small = sample();
    small.hot_capacity = Size(1);
    assert!(Config::parse(&small.render()).unwrap_err().to_string().contains("hot_capacity"));
    let mut alone = sample();
    alone.cold = None;
    assert!(Config::parse(&alone.render()).unwrap_err().to_string().contains("cold_capacity"));
    let mut never = sample();
    never.backup_interval = Period::secs(0);
    assert!(Config::parse(&never.render()).unwrap_err().to_string().contains("backup_interval"));
}

#[test]
fn cold_urls() {
    for good in ["file:///srv/cold", "s3://bucket", "s3://bucket/a/b", "gs://b/p", "az://c/p"] {
        assert!(good.parse::<ColdUrl>().is_ok(), "{good}");
    }
    for bad in ["", "/srv/cold", "file://srv/cold", "file:///", "s3://", "s3:///x", "ftp://h/p"] {
        assert!(bad.parse::<ColdUrl>().is_err(), "{bad}");
    }
}

#[test]
fn a_secret_in_the_url_is_refused_and_not_repeated() {
    for bad in ["s3://id:hunter2@bucket/p", "s3://bucket/p?sig=hunter2", "az://c/p#hunter2"] {
        let said = bad.parse::<ColdUrl>().unwrap_err();
        assert_eq!(said, cold_url::ColdUrlError::Secret);
        assert!(!said.to_string().contains("hunter2"));
    }
}

#[test]
fn metrics_stay_on_the_machine_unless_told_otherwise() {
    for good in ["127.0.0.1:9464", "127.8.8.8:0", "[::1]:9464", "0.0.0.0:9464", "[::]:1", "/run/f"]
    {
        let address: MetricsAddress = good.parse().unwrap();
        assert_eq!(address.to_string(), good);
    }
    for bad in
        ["", "9464", "localhost:9464", "192.168.1.2:9464", "[fe80::1]:9464", "run/f", "/run/"]
    {
        assert!(bad.parse::<MetricsAddress>().is_err(), "{bad}");
    }
    let text = sample().render().replace("127.0.0.1:9464", "10.0.0.1:9464");
    let said = Config::parse(&text).unwrap_err().to_string();
    assert!(said.contains("not an address of the loopback interface"), "{said}");
}

#[test]
fn an_encrypted_volume_says_where_its_key_is_kept_and_no_other_does() {
    let command = vec!["pass".to_owned(), "show \"x\"".to_owned()];
    let sources = [
        KeySource::File("/etc/firn/a \"b\".key".into()),
        KeySource::Env("FIRN_KEY".to_owned()),
        KeySource::Command(command),
    ];
    for source in sources {
        let config = sample().encrypted(source.clone());
        assert_eq!(config.format, ENCRYPTED_FORMAT, "an older program refuses it");
        let text = config.render();
        assert_eq!(Config::parse(&text).unwrap(), config);
        let moved = KeySource::Env("OTHER".to_owned());
        let changed = with_key(&text, &moved).unwrap();
        assert_eq!(Config::parse(&changed).unwrap(), sample().encrypted(moved));
        let lines = text.lines().zip(changed.lines()).filter(|(one, other)| one != other);
        assert_eq!(lines.count(), 1, "the rest stays as it was");
        let own_table = text.lines().filter(|line| !line.starts_with("key =")).collect::<Vec<_>>();
        let own_table = format!("{}\n[key]\nenv = \"X\"\n", own_table.join("\n"));
        assert!(Config::parse(&own_table).is_ok());
        assert!(with_key(&own_table, &source).is_err());
    }
    let said = |config: &Config| Config::parse(&config.render()).unwrap_err().to_string();
    let mut config = sample().encrypted(KeySource::Env("X".to_owned()));
    config.format = PLAIN_FORMAT;
    assert!(said(&config).contains("the volume is not encrypted"), "{}", said(&config));
    config.format = ENCRYPTED_FORMAT;
    config.key = None;
    assert!(said(&config).contains("key: is missing"), "{}", said(&config));
    for nothing in
        [KeySource::File("".into()), KeySource::Env("A=B".into()), KeySource::Command(vec![])]
    {
        assert!(said(&sample().encrypted(nothing)).contains("key: names no"));
    }
    let two = sample().encrypted(KeySource::Env("X".to_owned())).render();
    let two = two.replace("{ env = \"X\" }", "{ env = \"X\", file = \"y\" }");
    assert!(Config::parse(&two).is_err());
}

#[test]
fn arguments_of_a_key_command_are_not_repeated() {
    let source = KeySource::shell("echo hunter2".to_owned());
    assert_eq!(source.to_string(), "key command sh");
}
