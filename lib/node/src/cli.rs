//! The command line of a node or tool: the published flags and exit codes (protocol §4.2).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use crate::app::Flag;
use crate::config::{Config, ConfigError, Override};

/// The arguments cannot be understood.
pub(crate) const BAD_ARGUMENTS: u8 = 2;
/// The configuration file cannot be read.
pub(crate) const UNREADABLE_CONFIG: u8 = 3;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// To run.
    Run(Run),
    /// To print this and end with the code; code 0 goes to standard output.
    Print(String, u8),
}

/// How to run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) config: PathBuf,
    pub(crate) overrides: Vec<Override>,
    pub(crate) loose: bool,
    pub(crate) check_only: bool,
    pub(crate) flags: Vec<&'static str>,
}

/// Reads the arguments, the first of which is the program's name.
pub(crate) fn parse(name: &'static str, about: &'static str, flags: &'static [Flag], args: Vec<OsString>) -> Wish {
    let hint = |problem: &str| Wish::Print(format!("{problem}\nType {name} -h for help\n"), BAD_ARGUMENTS);
    let matches = match command(name, about, flags).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.exit_code() == 0 => return Wish::Print(error.render().to_string(), 0),
        Err(error) => {
            let text = error.render().to_string();
            return hint(text.lines().next().unwrap_or("error: bad arguments"));
        }
    };
    if matches.get_flag("version") {
        return Wish::Print(format!("{name} version {}\n", env!("CARGO_PKG_VERSION")), 0);
    }
    if matches.get_flag("build-info") {
        return Wish::Print(build_info(name), 0);
    }
    let Some(config) = matches.get_one::<PathBuf>("config") else {
        return hint("error: no configuration file given (-c FILE)");
    };
    let texts = matches.get_many::<String>("override-config").into_iter().flatten();
    match texts.map(|text| text.parse()).collect::<Result<_, ConfigError>>() {
        Ok(overrides) => Wish::Run(Run {
            config: config.clone(),
            overrides,
            loose: matches.get_flag("loose-config-parsing"),
            check_only: matches.get_flag("check-config"),
            flags: flags.iter().map(|flag| flag.long).filter(|flag| matches.get_flag(flag)).collect(),
        }),
        Err(error) => hint(&format!("error: {error}")),
    }
}

impl Run {
    /// Reads the configuration file.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(&self.config, self.overrides.clone())?;
        self.flags.iter().for_each(|flag| config.set_flag(flag));
        Ok(config)
    }
}

/// Prints what the command line asked to print.
pub(crate) fn print(text: &str, code: u8) -> ExitCode {
    if code == 0 {
        print!("{text}");
    } else {
        eprint!("{text}");
    }
    ExitCode::from(code)
}

/// One line for `--build-info` and `version.log`.
pub(crate) fn build_info(name: &str) -> String {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    format!("{name} version {version} ({profile}, {arch}-{os}, protocols: legacy, neo 1)\n")
}

fn command(name: &'static str, about: &'static str, flags: &'static [Flag]) -> Command {
    let switch = |long: &'static str| Arg::new(long).long(long).action(ArgAction::SetTrue);
    let mut command = Command::new(name)
        .about(about)
        .disable_version_flag(true)
        .arg(
            Arg::new("config")
                .short('c')
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Read the configuration from FILE"),
        )
        .arg(
            Arg::new("override-config")
                .short('O')
                .long("override-config")
                .value_name("SECTION.KEY=VALUE")
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .help("Use VALUE in place of what the file says; can be given more than once"),
        )
        .arg(switch("loose-config-parsing").help("Accept keys in the file that mean nothing"))
        .arg(switch("check-config").help("Check the configuration and exit"))
        .arg(switch("version").help("Print the version and exit"))
        .arg(switch("build-info").help("Print what this was built from and exit"));
    for flag in flags {
        let arg = switch(flag.long).help(flag.help);
        command = command.arg(if let Some(short) = flag.short { arg.short(short) } else { arg });
    }
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const FLAGS: &[Flag] = &[Flag { short: Some('o'), long: "oneshot", help: "Once" }];

    fn wish(args: &[&str]) -> Wish {
        parse("dhtdump", "about", FLAGS, ["dhtdump"].iter().chain(args).map(OsString::from).collect())
    }

    fn printed(args: &[&str]) -> (String, u8) {
        match wish(args) {
            Wish::Print(text, code) => (text, code),
            Wish::Run(run) => panic!("{run:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command("dhtnode", "about", FLAGS).debug_assert();
    }

    #[test]
    fn the_version_is_printed_as_published() {
        assert_eq!(printed(&["--version"]), (format!("dhtdump version {}\n", env!("CARGO_PKG_VERSION")), 0));
        assert!(printed(&["--build-info"]).0.starts_with("dhtdump version "));
        let (help, code) = printed(&["-h"]);
        assert!(help.contains("--loose-config-parsing") && help.contains("--oneshot") && code == 0);
    }

    #[test]
    fn wrong_arguments_end_with_2_and_a_hint() {
        for args in [&[][..], &["--nonsense"], &["-c"], &["-c", "x", "-O", "nonsense"], &["-c", "x", "more"]] {
            let (text, code) = printed(args);
            assert_eq!(code, 2, "{args:?}");
            assert!(text.ends_with("\nType dhtdump -h for help\n") && text.lines().count() == 2, "{text}");
        }
    }

    #[test]
    fn overrides_and_own_flags_reach_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.ini");
        std::fs::write(&file, "[Dump]\nperiod_s = 1\n").unwrap();
        let file = file.to_str().unwrap();
        let Wish::Run(run) =
            wish(&["-c", file, "-o", "-O", "Dump.period_s = 2", "--override-config", "Dump.min_wait_s=3"])
        else {
            panic!("it does not run")
        };
        assert!(!run.loose && !run.check_only);
        let config = run.load().unwrap();
        assert!(config.flag("oneshot") && !config.flag("other"));
        assert_eq!(config.section("Dump").text("period_s"), Some("2"));
        assert_eq!(config.section("Dump").text("min_wait_s"), Some("3"));
    }
}
