//! Help, completions and manual pages: all from one definition, for every verb.

use std::fs;

use crate::run::firn;

fn verbs() -> Vec<String> {
    let command = ::firn::cli::command();
    command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect()
}

#[test]
fn the_definition_is_sound() {
    ::firn::cli::command().debug_assert();
}

#[test]
fn every_verb_and_option_has_a_help_text() {
    fn walk(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
        }
        command.get_subcommands().for_each(walk);
    }
    walk(&::firn::cli::command());
}

#[test]
fn help_names_every_verb() {
    let help = firn(&["--help"]).done().out;
    for verb in verbs() {
        assert!(help.contains(&format!("  {verb} ")), "{verb} is missing in: {help}");
    }
    assert!(help.contains("Exit status"));
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = firn(&["completions", shell]).done().out;
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell} lacks {verb}");
        }
    }
}

#[test]
fn a_manual_page_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    firn(&["man", man.to_str().unwrap()]).done();
    for verb in verbs() {
        let page = fs::read_to_string(man.join(format!("firn-{verb}.1"))).unwrap();
        assert!(page.contains(".TH firn-"), "{page}");
    }
    let policy = fs::read_to_string(man.join("firn-policy.1")).unwrap();
    assert!(policy.contains(".SH EXAMPLE\n.nf\n# policy.toml"), "{policy}");
    assert!(policy.contains("\n.fi\n.SH VERSION\n"), "{policy}");
    assert!(fs::read_to_string(man.join("firn.1")).unwrap().contains("firn\\-init(1)"));
}

#[test]
fn nothing_and_nonsense_are_wrong_usage() {
    assert_eq!(firn::<&str>(&[]).code, 2);
    let ran = firn(&["muont"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("muont"), "{}", ran.err);
    assert_eq!(firn(&["--version"]).done().out, format!("firn {}\n", env!("CARGO_PKG_VERSION")));
}
