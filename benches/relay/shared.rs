//! CPU time per transaction where Postgres may run on the proxy's CPU too, with both drivers.
//!
//! Owns the section's proxies, scenarios and table. A send wakes a process at the other end; on a CPU that both share it can
//! take over at once, and then the proxy pays for two switches with each message.

use anyhow::Result;

use crate::median::{median, median_ratio};
use crate::output;
use crate::peer::{Kind, Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::Database;
use crate::setup::{Legs, Setup};
use crate::shape::Shape;
use crate::table::{Table, number, ratio};
use crate::turns::{self, Group, Sample};

/// The section's text.
pub(crate) async fn section(database: &Database, pinning: Pinning, plan: &Plan) -> Result<String> {
    pinning.share(database.pid()?)?;
    let pools = Setup::pools(Legs::Plain)?;
    let mut peers = Vec::new();
    for side in SIDES {
        peers.push(Peer::start(side, pinning, database, &pools)?);
    }
    let mut table = Table::new([
        "`SELECT 1`, protocol, clients",
        "io_uring CPU µs",
        "epoll CPU µs",
        "PgBouncer CPU µs",
        "relay CPU µs",
        "io_uring / PgBouncer",
        "epoll / PgBouncer",
        "io_uring / epoll",
        "io_uring tx/s",
        "PgBouncer tx/s",
        "io_uring p99 µs",
        "PgBouncer p99 µs",
    ]);
    for shape in [Shape::Simple, Shape::Prepared, Shape::Pipeline] {
        for clients in plan.clients.iter().copied() {
            output::line(format!("shared: {}, {clients} clients", shape.name()));
            let samples = measure(&peers, shape, clients, plan).await?;
            table.row(row(shape, clients, &samples));
        }
    }
    drop(peers);
    pinning.unshare(database.pid()?)?;
    Ok(table.finish())
}

/// Samples of each peer, one for each round.
async fn measure(peers: &[Peer], shape: Shape, clients: usize, plan: &Plan) -> Result<Vec<Vec<Sample>>> {
    let pool = shape.pool();
    let mut groups = Vec::new();
    for peer in peers {
        let mut group = Group::gather(peer.pids(), &peer.login(pool)?, clients).await?;
        group.warm_up(shape, clients, plan).await?;
        groups.push(group);
    }
    let mut samples: Vec<Vec<Sample>> = peers.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        let round = turns::measure(&mut groups, shape, clients, plan).await?;
        for (samples, sample) in samples.iter_mut().zip(round) {
            samples.push(sample);
        }
    }
    for group in groups {
        group.close().await?;
    }
    Ok(samples)
}

fn row(shape: Shape, clients: usize, samples: &[Vec<Sample>]) -> [String; 12] {
    let of = |at: usize, what: fn(&Sample) -> f64| -> Vec<f64> {
        samples.get(at).into_iter().flatten().map(what).collect()
    };
    let cpu = |at| of(at, |sample| sample.cpu_us);
    let rate = |at| number(median(&of(at, |sample| sample.per_second)));
    let p99 = |at| number(median(&of(at, |sample| sample.p99_us.unwrap_or(0.0))));
    let [ring_limit, epoll_limit] = limits(shape, clients);
    [
        format!("{}, {clients}", shape.name()),
        number(median(&cpu(RING))),
        number(median(&cpu(EPOLL))),
        number(median(&cpu(BOUNCER))),
        number(median(&cpu(RELAY))),
        ratio(median_ratio(&cpu(RING), &cpu(BOUNCER)), ring_limit),
        ratio(median_ratio(&cpu(EPOLL), &cpu(BOUNCER)), epoll_limit),
        ratio(median_ratio(&cpu(RING), &cpu(EPOLL)), f64::INFINITY),
        rate(RING),
        rate(BOUNCER),
        p99(RING),
        p99(BOUNCER),
    ]
}

/// At most this many times PgBouncer's CPU time, by io_uring and by epoll.
const fn limits(shape: Shape, clients: usize) -> [f64; 2] {
    match (clients, shape) {
        (1, _) => [1.0, 1.0],
        (_, Shape::Prepared) => [0.7, 0.85],
        (_, Shape::Pipeline) => [0.95, 0.95],
        _ => [0.8, 0.97],
    }
}

const SIDES: [Side; 4] = [
    Side { kind: Kind::Tenantry, name: "Tenantry by io_uring" },
    Side { kind: Kind::Epoll, name: "Tenantry by epoll" },
    Side { kind: Kind::PgBouncer, name: "PgBouncer" },
    Side { kind: Kind::Floor, name: "relay" },
];
/// Places in [`SIDES`].
const RING: usize = 0;
const EPOLL: usize = 1;
const BOUNCER: usize = 2;
const RELAY: usize = 3;
