use super::*;

fn catalogue(files: &[(&str, &str)]) -> (tempfile::TempDir, Catalogue) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    std::fs::create_dir_all(layout.program_dir()).unwrap();
    for (name, text) in files {
        std::fs::write(layout.program_dir().join(name), text).unwrap();
    }
    let catalogue = Catalogue::load(&layout);
    (dir, catalogue)
}

const ENGINES: &str = "[program:amqp2engines]\ncommand=%(here)s/../../bin/amqp2engines --instance %(process_num)d\n\
    numprocs=2\nprocess_name=%(program_name)s-%(process_num)d\nstartsecs=2\nstopwaitsecs=30\n\
    stdout_logfile=%(here)s/../../var/log/%(program_name)s-%(process_num)d.log\n\
    hyp_ready=http:127.0.0.1:809%(process_num)d/readyz\nhyp_after=rabbitmq-server, collectd\nhyp_timeout=20\n\
    hyp_check=%(here)s/../../bin/amqp2engines --check-config\n";

#[test]
fn a_program_with_several_processes_is_a_service_of_that_many() {
    let (dir, catalogue) = catalogue(&[("amqp2engines.conf", ENGINES), ("notes.txt", "[not")]);
    assert_eq!(catalogue.problems, Vec::<String>::new());
    let service = catalogue.service("amqp2engines").unwrap();
    assert_eq!(service.after, ["rabbitmq-server", "collectd"]);
    assert_eq!(service.timeout, Duration::from_secs(20));
    assert_eq!(service.checks.len(), 1);
    let second = &service.processes[1];
    assert_eq!(second.name.to_string(), "amqp2engines:amqp2engines-1");
    assert_eq!(second.stdout_log.as_deref().unwrap(), dir.path().join("var/log/amqp2engines-1.log"));
    assert_eq!((second.start_secs, second.stop_wait), (2, Duration::from_secs(30)));
    assert_eq!(second.ready[0].address(), Some("127.0.0.1:8091"));
    assert_eq!(second.command, format!("{}/bin/amqp2engines --instance 1", dir.path().display()));
    let addresses: Vec<_> = service.listens.iter().map(|l| l.address.as_str()).collect();
    assert_eq!(addresses, ["127.0.0.1:8090", "127.0.0.1:8091"]);
}

#[test]
fn names_and_wildcards_find_services_members_and_files() {
    let dht = |name: &str| format!("[program:dht-{name}]\ncommand=/bin/dht\n");
    let files = [
        ("amqp2engines.conf", ENGINES),
        ("dht-a.conf", &dht("a")),
        ("dht-b.conf", &dht("b")),
        ("broker.conf", "[program:epmd]\ncommand=/bin/e\n[program:rabbitmq-server]\ncommand=/bin/r\n"),
    ];
    let (_dir, catalogue) = catalogue(&files);
    let found = |name: &str| -> Vec<String> {
        let targets = catalogue.resolve(name);
        targets.iter().flat_map(|t| t.processes.iter().map(|p| p.name.to_string())).collect()
    };
    assert_eq!(found("epmd"), ["epmd"]);
    assert_eq!(found("dht*"), ["dht-a", "dht-b"]);
    assert_eq!(found("amqp2engines*"), ["amqp2engines:amqp2engines-0", "amqp2engines:amqp2engines-1"]);
    assert_eq!(found("amqp2engines:*"), found("amqp2engines"));
    assert_eq!(found("amqp2engines:amqp2engines-1"), ["amqp2engines:amqp2engines-1"]);
    assert_eq!(found("broker"), ["epmd", "rabbitmq-server"]);
    assert_eq!(found("nothing"), Vec::<String>::new());
    assert!(!catalogue.resolve("amqp2engines:amqp2engines-1")[0].is_whole());
}

#[test]
fn a_group_section_takes_its_programs_in() {
    let text = "[program:a]\ncommand=/bin/a\nhyp_timeout=90\nhyp_after=b\n[program:b]\ncommand=/bin/b\nhyp_requires=epmd\n\
                [group:both]\nprograms=a,b\n[program:c]\ncommand=/bin/c\n";
    let (_dir, catalogue) = catalogue(&[("x.conf", text)]);
    let names: Vec<_> = catalogue.services().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["both", "c"]);
    let both = catalogue.service("both").unwrap();
    assert_eq!(both.processes[1].name, ProcessName::new("both", "b"));
    assert_eq!((both.requires.as_slice(), both.after.as_slice()), (["epmd".to_owned()].as_slice(), [].as_slice()));
    assert_eq!(both.timeout, Duration::from_secs(90));
}

#[test]
fn one_bad_file_leaves_the_others_alone() {
    let (_dir, catalogue) = catalogue(&[
        ("a.conf", "[program:a]\nnonsense\n"),
        ("b.conf", "[program:b]\ncommand=/bin/b\n"),
        ("c.conf", "[program:c]\ncommand=/bin/c\nhyp_ready=carrier-pigeon:1\n"),
        ("d.conf", "[program:d]\nstartsecs=1\n[group:g]\nprograms=zzz\n"),
    ]);
    assert!(catalogue.service("b").is_some());
    assert_eq!(catalogue.problems.len(), 5, "{:#?}", catalogue.problems);
    assert!(catalogue.problems[0].contains("a.conf:2: "), "{}", catalogue.problems[0]);
    assert!(catalogue.problems[1].contains("c.conf:1: [program:c] hyp_ready: "), "{}", catalogue.problems[1]);
}

#[test]
fn a_program_that_is_defined_twice_is_reported() {
    let (_dir, catalogue) =
        catalogue(&[("a.conf", "[program:x]\ncommand=/bin/a\n"), ("b.conf", "[program:x]\ncommand=/bin/b\n")]);
    assert_eq!(catalogue.problems.len(), 1);
    assert!(catalogue.problems[0].contains("b.conf:1: [program:x] is also defined in "), "{}", catalogue.problems[0]);
}

#[test]
fn a_listened_address_names_what_changes_it() {
    let text = "[program:b]\ncommand=/bin/b\nhyp_ready=amqp:127.0.0.1:5672\n\
                hyp_listen=127.0.0.1:5672 listeners.tcp.1 in etc/rabbitmq/rabbitmq.conf\n  127.0.0.1:25673 RABBITMQ_DIST_PORT\n";
    let (_dir, catalogue) = catalogue(&[("b.conf", text)]);
    let listens = &catalogue.service("b").unwrap().listens;
    assert_eq!(listens.len(), 2);
    assert_eq!(listens[0].changed_by, "listeners.tcp.1 in etc/rabbitmq/rabbitmq.conf");
    assert_eq!(listens[1].address, "127.0.0.1:25673");
}
