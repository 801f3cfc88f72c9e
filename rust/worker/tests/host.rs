//! Workers of one and of two processes behind real sockets, with this file in Python's place.
//!
//! What a client may rely on: the order of its own requests, one order for all, transactions once a key, subscriptions
//! that reach every owner, an end that all processes share.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::RelationId;
use dataflow_worker::config::Config;
use dataflow_worker::events::{Answer, Ending, Event};
use dataflow_worker::feed::{Bell, Feed};
use dataflow_worker::host::Host;
use mio::unix::SourceFd;
use serde_json::{Value, json};

const FAR_TOO_LONG: Duration = Duration::from_secs(60);
/// The relation that a cluster's first program has.
const FIRST: RelationId = RelationId(1);

/// A process of a cluster, and a planner that knows one kind of program: the name of an input relation of a number.
struct Process {
    host: Arc<Host>,
    formed: mpsc::Receiver<u64>,
    planner: Option<JoinHandle<Ending>>,
}

impl Process {
    fn start(config: Config) -> Self {
        let host = Arc::new(Host::start(config).expect("the workers start"));
        let (tell, formed) = mpsc::channel();
        let planner = {
            let host = Arc::clone(&host);
            std::thread::spawn(move || attend(&host, &tell))
        };
        Process { host, formed, planner: Some(planner) }
    }

    fn alone(threads: usize) -> Self {
        let process = Process::start(Config { listen: "127.0.0.1:0".into(), threads, ..Config::default() });
        assert_eq!(process.wait_formed(), 1);
        assert!(process.host.is_formed());
        process
    }

    /// Processes that know each other, one thread each.
    fn cluster(processes: usize) -> Vec<Self> {
        let cluster: Vec<_> = configs(processes).into_iter().map(Process::start).collect();
        assert!(cluster.iter().all(|process| process.wait_formed() == 1));
        cluster
    }

    /// The number of the next generation to be formed.
    fn wait_formed(&self) -> u64 {
        self.formed.recv_timeout(FAR_TOO_LONG).expect("the cluster forms")
    }

    fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.host.address()).expect("the port is open"))
    }

    /// A client of a worker.
    fn client_of(&self, worker: usize) -> Client {
        loop {
            let mut client = self.client();
            if client.ok("hello", json!({"version": 1}))["worker"] == json!(worker) {
                return client;
            }
        }
    }

    /// Ends it as a crash would, as far as others can tell.
    fn abandon(mut self) -> Ending {
        self.host.abandon();
        self.planner.take().expect("asked for once").join().expect("the planner ends")
    }

    fn ending(mut self) -> Ending {
        self.planner.take().expect("asked for once").join().expect("the planner ends")
    }
}

/// The settings of processes that know each other, one thread each.
fn configs(processes: usize) -> Vec<Config> {
    let held: Vec<_> = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mesh: Vec<_> = held.iter().map(|each| each.local_addr().unwrap().to_string()).collect();
    let config = |process| Config {
        listen: "127.0.0.1:0".into(),
        processes,
        process,
        mesh: mesh.clone(),
        secret: Some("between us".into()),
        ..Config::default()
    };
    (0..processes).map(config).collect()
}

/// Answers events until the last one, like Python's orchestrator.
fn attend(host: &Host, formed: &mpsc::Sender<u64>) -> Ending {
    let fd = host.event_fd();
    let mut poll = mio::Poll::new().unwrap();
    poll.registry().register(&mut SourceFd(&fd), mio::Token(0), mio::Interest::READABLE).unwrap();
    let mut ready = mio::Events::with_capacity(1);
    loop {
        for event in host.drain() {
            match event {
                Event::Register { ticket, program, name, .. }
                    if program.chars().all(char::is_alphanumeric) =>
                {
                    host.answer(ticket, Answer::Plan(plan(&program, name.as_deref())));
                }
                Event::Register { ticket, .. } => {
                    let error = ErrorBody::incorrect("no such program").with_position(1, 2);
                    host.answer(ticket, Answer::Rejected(error));
                }
                Event::Explain { ticket, .. } => {
                    host.answer(ticket, Answer::Explanation(json!({"op": "get"}).to_string()));
                }
                Event::Stopped(ending) => {
                    assert_eq!(host.join(FAR_TOO_LONG), Some(ending.clone()));
                    return ending;
                }
                Event::Formed { generation } => drop(formed.send(generation)),
                Event::Registered { .. } | Event::Unregistered { .. } | Event::Fallen { .. } => {}
                Event::Attach { .. }
                | Event::Attached { .. }
                | Event::Unattached { .. }
                | Event::Detach { .. } => panic!("nobody attaches a source here"),
            }
        }
        poll.poll(&mut ready, Some(FAR_TOO_LONG)).unwrap();
    }
}

fn plan(relation: &str, name: Option<&str>) -> String {
    let column = json!({"name": "x", "type": "number"});
    json!({
        "version": 1, "name": name.unwrap_or(relation), "digest": relation, "imports": [], "nodes": [], "strata": [],
        "relations": [{"name": relation, "columns": [column], "input": "set", "output": false}],
    })
    .to_string()
}

/// A client that speaks JSON lines.
struct Client {
    socket: TcpStream,
    lines: BufReader<TcpStream>,
    pushed: Vec<Value>,
}

impl Client {
    fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(FAR_TOO_LONG)).unwrap();
        Client { lines: BufReader::new(socket.try_clone().unwrap()), socket, pushed: Vec::new() }
    }

    fn send(&mut self, request: &Value) {
        self.socket.write_all(format!("{request}\n").as_bytes()).unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "closed by the server");
        serde_json::from_str(&line).unwrap()
    }

    /// The reply to `id`; what is pushed meanwhile is kept.
    fn reply(&mut self, id: u64) -> Value {
        loop {
            let message = self.receive();
            if message["id"] == json!(id) {
                return message;
            }
            assert!(message.get("sub").is_some(), "unexpected {message}");
            self.pushed.push(message);
        }
    }

    fn call(&mut self, op: &str, fields: Value) -> Value {
        let mut request = fields;
        request["id"] = json!(0);
        request["op"] = json!(op);
        self.send(&request);
        self.reply(0)
    }

    fn ok(&mut self, op: &str, fields: Value) -> Value {
        let reply = self.call(op, fields);
        assert!(reply.get("ok").is_some(), "{op}: {reply}");
        reply["ok"].clone()
    }

    fn error(&mut self, op: &str, fields: Value) -> Value {
        self.call(op, fields)["error"]["code"].clone()
    }

    fn push(&mut self) -> Value {
        if self.pushed.is_empty() { self.receive() } else { self.pushed.remove(0) }
    }

    /// The rows of a snapshot, however many messages it comes in.
    fn snapshot(&mut self, time: &Value) -> Vec<Value> {
        let mut rows = Vec::new();
        loop {
            let part = self.push();
            assert_eq!((&part["snapshot"], &part["time"]), (&json!(true), time), "{part}");
            rows.extend(part["changes"].as_array().unwrap().iter().cloned());
            if part.get("more").is_none() {
                return rows;
            }
        }
    }

    fn insert(&mut self, relation: &str, number: i64) -> u64 {
        let changes = json!([{"relation": relation, "insert": [[number]]}]);
        self.ok("transact", json!({"changes": changes}))["time"].as_u64().unwrap()
    }
}

#[test]
fn neighbouring_connections_have_different_owners() {
    let process = Process::alone(2);
    let owners: Vec<_> =
        (0..4).map(|_| process.client().ok("hello", json!({"version": 1}))["worker"].clone()).collect();
    assert_ne!(owners[0], owners[1]);
    assert_eq!((&owners[0], &owners[1]), (&owners[2], &owners[3]));
}

#[test]
fn a_connection_cannot_overtake_itself() {
    for threads in 1..=3 {
        let process = Process::alone(threads);
        let mut client = process.client();
        let rows = |number: i64| json!([{"relation": "e", "insert": [[number]]}]);
        for request in [
            json!({"id": 1, "op": "register", "program": "e"}),
            json!({"id": 2, "op": "transact", "changes": rows(1)}),
            json!({"id": 3, "op": "read", "relation": "e"}),
            json!({"id": 4, "op": "transact", "changes": rows(2)}),
            json!({"id": 5, "op": "read", "relation": "e"}),
            json!({"id": 6, "op": "unregister", "name": "e"}),
            json!({"id": 7, "op": "read", "relation": "e"}),
        ] {
            client.send(&request);
        }
        // Replies may overtake one another.
        let mut replies: Vec<Value> = (1..=7).map(|_| client.receive()).collect();
        replies.sort_by_key(|reply| reply["id"].as_u64());
        let times: Vec<u64> =
            replies[..6].iter().map(|reply| reply["ok"]["time"].as_u64().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert!(times[0] < times[1] && times[2] < times[3], "{times:?}");
        assert_eq!(replies[2]["ok"]["rows"], json!([[1]]));
        assert_eq!(replies[4]["ok"]["rows"].as_array().map(Vec::len), Some(2));
        assert_eq!(replies[6]["error"]["code"], "not-found");
    }
}

#[test]
fn acknowledged_writes_are_seen_by_whoever_asks_next() {
    let process = Process::alone(3);
    let mut clients: Vec<Client> = (0..3).map(|_| process.client()).collect();
    clients[0].ok("register", json!({"program": "e"}));
    for round in 0..60 {
        let time = clients[round % 3].insert("e", round as i64);
        let read = clients[(round + 1) % 3].ok("read", json!({"relation": "e"}));
        assert_eq!(read["rows"].as_array().map(Vec::len), Some(round + 1));
        assert!(read["time"].as_u64() >= Some(time));
    }
}

#[test]
fn a_key_has_effect_once_whoever_repeats_it() {
    let process = Process::alone(2);
    let (mut one, mut two) = (process.client(), process.client());
    one.ok("register", json!({"program": "e"}));
    let keyed = |number: i64| json!({"key": "k", "changes": [{"relation": "e", "insert": [[number]]}]});
    let first = one.ok("transact", keyed(1));
    one.ok("transact", json!({"changes": [{"relation": "e", "delete": [[1]]}]}));
    let again = two.ok("transact", keyed(1));
    assert_eq!((&again["time"], &again["deduplicated"]), (&first["time"], &json!(true)));
    assert_eq!(two.error("transact", keyed(2)), "conflict");
    assert_eq!(two.ok("read", json!({"relation": "e"}))["rows"], json!([]));
    assert_eq!(one.error("transact", json!({"key": "", "changes": []})), "incorrect");
}

#[test]
fn subscribers_of_every_owner_get_snapshot_steps_and_end() {
    let process = Process::alone(3);
    let mut clients: Vec<Client> = (0..6).map(|_| process.client()).collect();
    clients[0].ok("register", json!({"program": "e"}));
    clients[0].insert("e", 1);
    let starts: Vec<Value> = (0..6)
        .map(|i| {
            clients[i].ok("subscribe", json!({"relation": "e", "snapshot": i % 2 == 0, "where": {"x": 1}}))
        })
        .collect();
    let time = clients[1].insert("e", 2);
    let gone =
        clients[1].ok("transact", json!({"changes": [{"relation": "e", "delete": [[1]]}]}))["time"].clone();
    assert!(gone.as_u64() > Some(time));
    for (index, (client, start)) in clients.iter_mut().zip(&starts).enumerate() {
        if index % 2 == 0 {
            assert_eq!(client.snapshot(&start["time"]), [json!([[1], 1])]);
        }
        assert_eq!(client.push(), json!({"sub": 1, "time": gone, "changes": [[[1], -1]]}), "2 doesn't pass");
    }
    let ended = clients[3].ok("unsubscribe", json!({"sub": 1}));
    assert!(ended["time"].as_u64() > gone.as_u64());
    assert_eq!(clients[3].error("unsubscribe", json!({"sub": 1})), "not-found");
    clients[0].ok("unregister", json!({"name": "e"}));
    for index in [0, 1, 2, 4, 5] {
        assert_eq!(clients[index].push()["error"]["code"], "not-found");
    }
    clients[3].ok("ping", json!({}));
    assert!(clients[3].pushed.is_empty());
}

#[test]
fn what_python_refuses_reaches_the_client_as_it_is() {
    let process = Process::alone(1);
    let mut client = process.client();
    let refused = client.call("register", json!({"program": "not a name"}));
    assert_eq!(refused["error"]["at"], json!({"line": 1, "column": 2}));
    client.ok("register", json!({"program": "e", "name": "m"}));
    assert_eq!(client.error("register", json!({"program": "f", "name": "m"})), "conflict");
    assert_eq!(client.ok("explain", json!({"relation": "e"}))["plan"], json!({"op": "get"}));
}

#[test]
fn tunables_are_set_on_all_workers_or_not_at_all() {
    let process = Process::alone(2);
    let (mut one, mut two) = (process.client(), process.client());
    assert_eq!(one.ok("tune", json!({"steps_per_turn": 3}))["steps_per_turn"], 3);
    assert_eq!(two.ok("status", json!({}))["tunables"]["steps_per_turn"], 3);
    assert_eq!(two.error("tune", json!({"park_micros": 7, "steps_per_turn": 0})), "incorrect");
    assert_eq!(one.ok("status", json!({}))["tunables"]["park_micros"], 100_000);
}

#[test]
fn processes_form_a_cluster_that_works_and_stops_as_one() {
    let cluster = Process::cluster(3);
    let mut clients: Vec<Client> = cluster.iter().map(Process::client).collect();
    let hellos: Vec<Value> =
        clients.iter_mut().map(|client| client.ok("hello", json!({"version": 1}))).collect();
    assert!(hellos.iter().all(|hello| hello["history"] == hellos[0]["history"] && hello["workers"] == 3));
    clients[2].ok("register", json!({"program": "e"}));
    let time = clients[0].ok("subscribe", json!({"relation": "e"}))["time"].clone();
    assert!(clients[0].snapshot(&time).is_empty());
    for round in 0..30 {
        let time = clients[round % 3].insert("e", round as i64);
        assert_eq!(clients[0].push(), json!({"sub": 1, "time": time, "changes": [[[round], 1]]}));
    }
    assert_eq!(clients[1].ok("shutdown", json!({})), json!({}));
    assert_eq!(clients[0].push()["error"]["code"], ErrorCode::Interrupted.name());
    assert!(cluster.into_iter().all(|process| process.ending() == Ending::Clean));
}

/// Reads until the connection ends; the code of the error that ended subscription 1.
fn last_words(client: &mut Client) -> Value {
    let mut code = Value::Null;
    let mut line = String::new();
    while client.lines.read_line(&mut line).is_ok_and(|count| count > 0) {
        let message: Value = serde_json::from_str(&line).unwrap();
        if message["sub"] == 1 && message.get("error").is_some() {
            code = message["error"]["code"].clone();
        }
        line.clear();
    }
    code
}

#[test]
fn a_worker_that_panics_ends_the_generation_and_another_one_begins() {
    let process = Process::start(Config { listen: "127.0.0.1:0".into(), threads: 2, ..Config::default() });
    let mut histories = Vec::new();
    for generation in 1..=3 {
        assert_eq!(process.wait_formed(), generation);
        let mut clients = [process.client(), process.client()];
        let hello = clients[0].ok("hello", json!({"version": 1}));
        histories.push(hello["history"].clone());
        clients[1].ok("register", json!({"program": "e"}));
        for client in &mut clients {
            client.ok("subscribe", json!({"relation": "e"}));
        }
        clients[0].insert("e", 1);
        assert_eq!(clients[1].ok("read", json!({"relation": "e"}))["rows"], json!([[1]]));
        process.host.sabotage();
        clients[0].send(&json!({"id": 9, "op": "transact", "changes": []}));
        for client in &mut clients {
            assert_eq!(last_words(client), "interrupted");
        }
    }
    assert!(histories[0] != histories[1] && histories[1] != histories[2]);
    process.wait_formed();
    assert_eq!(process.client().error("read", json!({"relation": "e"})), "not-found");
    process.host.shutdown();
    assert_eq!(process.ending(), Ending::Clean);
}

#[test]
fn what_was_sent_to_one_generation_does_not_reach_the_next() {
    for io_threads in 0..=2 {
        let listen = "127.0.0.1:0".into();
        let process = Process::start(Config { listen, threads: 2, io_threads, ..Config::default() });
        for (generation, relation) in [(1, "e"), (2, "f"), (3, "g")] {
            assert_eq!(process.wait_formed(), generation);
            let mut clients = [process.client(), process.client()];
            // It has the same number in each generation, under another name.
            clients[0].ok("register", json!({"program": relation}));
            let rows = clients[1].ok("read", json!({"relation": relation}))["rows"].clone();
            assert_eq!(rows, json!([]), "{relation} with {io_threads} I/O threads");
            process.host.sabotage();
            let changes = json!([{"relation": relation, "insert": [[1]]}]);
            let request = format!("{}\n", json!({"op": "transact", "changes": changes}));
            for client in &mut clients {
                // More than a turn takes; the connection may be closed in the middle of it.
                let _ = client.socket.write_all(request.repeat(5000).as_bytes());
            }
        }
        process.host.shutdown();
        process.ending();
    }
}

#[test]
fn processes_that_live_form_a_generation_with_one_that_was_started_again() {
    for victim in 0..3 {
        let configs = configs(3);
        let mut cluster: Vec<_> = configs.iter().cloned().map(Process::start).collect();
        cluster.iter().for_each(|process| assert_eq!(process.wait_formed(), 1));
        let survivor = (victim + 1) % 3;
        let mut client = cluster[survivor].client();
        client.ok("register", json!({"program": "e"}));
        client.ok("subscribe", json!({"relation": "e"}));
        client.insert("e", 1);
        // No farewell to the other processes: its links are just closed.
        cluster.remove(victim).abandon();
        assert_eq!(last_words(&mut client), "interrupted");
        let refused = cluster[survivor.min(1)].client().call("ping", json!({}));
        assert_eq!(refused["error"]["code"], "unavailable", "{refused}");
        cluster.insert(victim, Process::start(configs[victim].clone()));
        for process in &cluster {
            assert!(process.wait_formed() > 1);
            assert_eq!(process.client().error("read", json!({"relation": "e"})), "not-found");
        }
        cluster[victim].client().ok("register", json!({"program": "e"}));
        let time = cluster[survivor].client().insert("e", 2);
        for process in &cluster {
            let read = process.client().ok("read", json!({"relation": "e"}));
            assert_eq!((&read["rows"], read["time"].as_u64() >= Some(time)), (&json!([[2]]), true));
        }
        cluster[0].host.shutdown();
        assert!(cluster.into_iter().all(|process| process.ending() == Ending::Clean));
    }
}

#[test]
fn until_the_cluster_is_formed_everything_is_unavailable() {
    let mesh = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mesh.local_addr().unwrap().to_string();
    drop(mesh);
    let config = Config {
        listen: "127.0.0.1:0".into(),
        processes: 2,
        mesh: vec![address, "127.0.0.1:1".into()],
        ..Config::default()
    };
    let process = Process::start(config);
    let mut client = process.client();
    let refused = client.call("hello", json!({"version": 1}));
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["retry"]),
        (&json!("unavailable"), &json!(true))
    );
    process.host.shutdown();
    assert_eq!(process.ending(), Ending::Clean);
}

#[test]
fn a_relation_that_was_cancelled_is_unknown_whoever_decodes() {
    for io_threads in 0..=2 {
        let config = Config { listen: "127.0.0.1:0".into(), io_threads, ..Config::default() };
        let process = Process::start(config);
        process.wait_formed();
        let mut client = process.client();
        client.ok("register", json!({"program": "e"}));
        client.ok("cancel", json!({"name": "e"}));
        let refused = client.call("read", json!({"relation": "e"}))["error"]["message"].clone();
        assert_eq!(refused, "unknown relation `e`", "with {io_threads} I/O threads");
    }
}

#[test]
fn clients_that_vanish_leave_nothing() {
    let process = Process::alone(2);
    let mut client = process.client();
    client.ok("register", json!({"program": "e"}));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = process.client();
        let done = &done;
        scope.spawn(move || {
            let mut number = 0;
            while !done.load(Ordering::SeqCst) {
                number += 1;
                writer.insert("e", number);
            }
        });
        for _ in 0..50 {
            let mut fleeting = process.client();
            fleeting.send(&json!({"id": 1, "op": "subscribe", "relation": "e"}));
            fleeting.socket.write_all(b"{\"id\":2,\"op\":\"rea").unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    loop {
        let status = client.ok("status", json!({}));
        if status["clients"] == 1 && status["counters"]["subscriptions"] == 0 {
            break;
        }
    }
}

/// Empties the first relation of a cluster whose workers take so many turns for looking at what is in it that it goes
/// before they have.
fn empty_and_unregister(process: &Process, feed: &Feed) {
    let mut client = process.client_of(feed.worker());
    client.ok("register", json!({"program": "e"}));
    let rows: Vec<_> = (0..50_000).map(|number| [number]).collect();
    client.ok("transact", json!({"changes": [{"relation": "e", "insert": rows}]}));
    client.ok("tune", json!({"emit_rows": 1}));
    assert!(feed.clear(&[(FIRST, 1)]));
    // By the second one's turn its worker has looked at what the feed has.
    (0..2).for_each(|_| drop(client.ok("ping", json!({}))));
    client.ok("unregister", json!({"name": "e"}));
}

fn wait_until_nothing_is_held(feed: &Feed, bell: &Bell) {
    let begun = Instant::now();
    while feed.progress().held_bytes > 0 {
        assert!(begun.elapsed() < FAR_TOO_LONG, "what is under way never arrives: {:?}", feed.progress());
        bell.wait(FAR_TOO_LONG);
    }
}

#[test]
fn a_feed_that_empties_a_relation_which_goes_meanwhile_ends() {
    for threads in 1..=3 {
        let process = Process::alone(threads);
        let bell = Arc::default();
        let feed = process.host.open_feed(1, 1 << 20, &bell);
        empty_and_unregister(&process, &feed);
        wait_until_nothing_is_held(&feed, &bell);
        assert_eq!(feed.ended().map(|why| why.code), Some(ErrorCode::NotFound));
        assert_eq!(feed.progress().applied, 0);
    }
}

#[test]
fn a_feed_opened_while_the_workers_leave_ends() {
    for _ in 0..50 {
        let process = Process::alone(2);
        let host = Arc::clone(&process.host);
        let source = std::thread::spawn(move || {
            let bell = Arc::default();
            loop {
                let feed = host.open_feed(1, 1 << 20, &bell);
                feed.clear(&[(FIRST, 1)]);
                wait_until_nothing_is_held(&feed, &bell);
                if feed.ended().is_some_and(|why| why.code == ErrorCode::Interrupted) {
                    return;
                }
            }
        });
        process.client().ok("shutdown", json!({}));
        assert_eq!(process.ending(), Ending::Clean);
        source.join().unwrap();
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let start = |config: Config| {
        Host::start(Config { listen: "127.0.0.1:0".into(), ..config }).err().map(|e| e.to_string())
    };
    assert!(start(Config { threads: 0, ..Config::default() }).unwrap().contains("at least one"));
    assert!(start(Config { process: 1, ..Config::default() }).unwrap().contains("process 1 of 1"));
    assert!(start(Config { processes: 2, ..Config::default() }).unwrap().contains("mesh addresses"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    assert!(
        Host::start(Config { listen, ..Config::default() }).err().unwrap().to_string().contains("listen")
    );
}
