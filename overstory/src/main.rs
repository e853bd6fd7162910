//! One executable for all programs: chosen by the name it is called with, or `overstory NAME …`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use overstory_runtime::program;

/// A program: takes its arguments, its own name first.
type Run = fn(Vec<OsString>) -> ExitCode;

/// A program's name, what it is for, and its entry.
struct Applet {
    name: &'static str,
    about: &'static str,
    run: Run,
}

const APPLETS: [Applet; 17] = [
    Applet {
        name: "hypcontrol",
        about: "start, stop and watch the whole stack",
        run: overstory_tools::hypcontrol::run,
    },
    Applet { name: "service", about: "start, stop and watch one service", run: overstory_tools::service::run },
    Applet { name: "send_event", about: "send events to the API", run: overstory_tools::send_event::run },
    Applet { name: "amqp2tty", about: "print what passes through an exchange", run: overstory_tools::amqp2tty::run },
    Applet { name: "amqp2engines", about: "the event engines", run: overstory_amqp2engines::run },
    Applet { name: "collectd", about: "the host connector", run: overstory_collectd::run },
    Applet { name: "webserver", about: "the REST API", run: overstory_webserver::run },
    Applet {
        name: "dhtnode",
        about: "a dht node: records in memory for a range of keys",
        run: overstory_dht::dhtnode::run,
    },
    Applet { name: "dhtdump", about: "dumps a dht node from beside it", run: overstory_dht::dhtdump::run },
    Applet { name: "dhtredist", about: "spreads records over dht nodes anew", run: overstory_dht::dhtredist::run },
    Applet { name: "tcmcli", about: "read, write and verify dump files of a dht", run: overstory_dht::tcmcli::run },
    Applet { name: "dmqnode", about: "a queue node: queues in memory and on disk", run: overstory_dmq::dmqnode::run },
    Applet { name: "queuenode", about: "a queue node: queues in memory alone", run: overstory_dmq::queuenode::run },
    Applet {
        name: "logfilesnode",
        about: "a logfiles node: records on disk by channel and timestamp",
        run: overstory_logfiles::logfilesnode::run,
    },
    Applet {
        name: "logfiles_check",
        about: "check and repair the files of a logfiles node",
        run: overstory_logfiles::check::run,
    },
    Applet { name: "swarm", about: "read and write records of swarm nodes", run: overstory_tools::swarm::run },
    Applet { name: "overstory", about: "administration", run: overstory_tools::overstory_admin::run },
];

fn main() -> ExitCode {
    let mut arguments = program::arguments();
    let called = arguments.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    if let Some(applet) = called.and_then(find).filter(|applet| applet.name != "overstory") {
        return (applet.run)(arguments);
    }
    match arguments.get(1).and_then(|name| name.to_str()) {
        Some("--programs") => {
            APPLETS.iter().for_each(|applet| println!("{:<14} {}", applet.name, applet.about));
            ExitCode::SUCCESS
        }
        Some(name) => match find(name).filter(|applet| applet.name != "overstory") {
            Some(applet) => {
                arguments.remove(0);
                (applet.run)(arguments)
            }
            None => overstory_tools::overstory_admin::run(arguments),
        },
        None => overstory_tools::overstory_admin::run(arguments),
    }
}

fn find(name: &str) -> Option<&'static Applet> {
    APPLETS.iter().find(|applet| applet.name == name)
}
