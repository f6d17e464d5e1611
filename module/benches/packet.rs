// SPDX-License-Identifier: GPL-2.0

//! What it costs to parse and count a packet, without the kernel around it.
//!
//! A packet is a UDP datagram from an address that is drawn at random to its counterpart: there are as many
//! flows as addresses, and both ends are counted. It is written into one buffer, as the addresses are all that
//! tells packets apart, so it is the rows that miss the cache, not the packets. Drawing the addresses is part of every
//! figure; `draw` is that alone.

use std::{
    hint::black_box,
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        Barrier,
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion};
use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};
use xt_traffic_accounting::{
    abi::{self, XtTrafficMtinfo},
    accounting::{
        flows::{Clock, Flows, Ticks},
        hash::Seed,
        key::Owner,
        ledger::{self, Ledger, Ledgers},
        network::Network,
        packet::Family,
        params::Params,
        report,
    },
    host::{Bytes, Heap},
};

/// Addresses that packets are drawn from.
const ADDRESSES: [u32; 4] = [1, 1 << 8, 1 << 16, 1_000_000];
/// The networks that rules are for: the first has direct rows, the second hashed ones.
const SMALL: u8 = 16;
const LARGE: u8 = 8;
/// 10.0.0.0
const BASE: u32 = 0x0a00_0000;

const TRAFFIC: u8 = abi::COUNT_TRAFFIC;
const ALL: u8 = abi::COUNT_TRAFFIC | abi::COUNT_IPCONN | abi::COUNT_PORTCONN;

/// Bytes that push everything else out of the caches of most machines.
const EVICTION: usize = 256 << 20;
/// Packets after each eviction.
const COLD: u64 = 256;

/// What CPUs count for one rule.
struct Rule {
    network: Network<u32>,
    flows: Flows,
    ledgers: Vec<Ledger<u32, Heap>>,
}

impl Rule {
    fn new(count: u8, prefix: u8, cpus: u32) -> Self {
        let params = params(count, prefix, cpus);
        let seed = Seed::new(0x5eed);
        let flows = Flows::new(seed, Clock { ticks_per_second: 1000 }, params.sizes.flow_sets);
        let ledger = |_| {
            let Ok(ledger) = Ledger::new(params.counts, params.sizes, seed, &flows, &Heap::ENDLESS);
            ledger
        };
        Self { network: params.network, flows, ledgers: (0..cpus).map(ledger).collect() }
    }

    /// Counts a packet, as the match does in the kernel.
    fn count(&self, cpu: usize, packet: &[u8]) -> bool {
        let packet = Bytes(packet);
        let (Some(header), Some(own)) = (u32::header(&packet), self.ledgers.get(cpu)) else {
            return false;
        };
        let Some(ends) = self.network.ends(header.source, header.destination) else {
            return false;
        };
        ledger::count(self, own, &packet, header, ends)
    }

    /// Bytes of memory on a CPU for each of so many addresses: rows of bytes and of connections, and what finds them.
    fn memory(&self, addresses: u32) -> f64 {
        let traffic = self.ledgers.iter().filter_map(Ledger::traffic).map(|table| table.memory());
        let ipconn = self.ledgers.iter().filter_map(Ledger::ipconn).map(|table| table.memory());
        let bytes: usize = traffic.chain(ipconn).sum();
        bytes as f64 / (f64::from(addresses) * self.ledgers.len() as f64)
    }
}

impl Ledgers<u32, Heap> for Rule {
    fn all<'a>(&'a self) -> impl Iterator<Item = &'a Ledger<u32, Heap>>
    where
        u32: 'a,
        Heap: 'a,
    {
        self.ledgers.iter()
    }

    fn flows(&self) -> &Flows {
        &self.flows
    }

    fn now(&self) -> Ticks {
        1
    }
}

fn params(count: u8, prefix: u8, cpus: u32) -> Params<u32> {
    let (mut netbase, mut netmask, mut name) = ([0; 16], [0; 16], [0; abi::NAME_SIZE]);
    netbase[..4].copy_from_slice(&BASE.to_be_bytes());
    netmask[..4].copy_from_slice(&(u32::MAX << (32 - prefix)).to_be_bytes());
    name[0] = b't';
    let internal = abi::INTERNAL_ANY;
    let info = XtTrafficMtinfo { netbase, netmask, name, count, internal, clear_on_read: 0, reserved: 0, hash_size: 0 };
    Params::from_info(&info, cpus).expect("the parameters are good")
}

/// Draws packets.
struct Source {
    state: u64,
    addresses: u32,
    packet: [u8; 28],
}

impl Source {
    fn new(addresses: u32) -> Self {
        let mut packet = [0; 28];
        packet[0] = 0x45;
        packet[9] = 17;
        packet[20..24].copy_from_slice(&[0x30, 0x39, 0, 53]);
        Self { state: 0x853c_49e6_748f_ea9b, addresses, packet }
    }

    fn next(&mut self) -> &[u8; 28] {
        self.state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        // From the upper half of a product: that costs little, and no address is much more likely than another.
        let one = (((self.state >> 32) * u64::from(self.addresses)) >> 32) as u32;
        self.address(one);
        &self.packet
    }

    /// Writes the packet from one of the addresses to its counterpart, half of all addresses away.
    fn address(&mut self, one: u32) {
        let other = one + self.addresses / 2;
        let other = if other < self.addresses { other } else { other - self.addresses };
        self.packet[12..16].copy_from_slice(&(BASE + one).to_be_bytes());
        self.packet[16..20].copy_from_slice(&(BASE + other).to_be_bytes());
    }
}

fn count_on(rule: &Rule, cpu: usize, source: &mut Source, packets: u64) -> Duration {
    timed(packets, || rule.count(cpu, black_box(source.next())))
}

fn timed<T>(times: u64, mut what: impl FnMut() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..times {
        black_box(what());
    }
    begun.elapsed()
}

/// Keeps this thread on one of the CPUs that it may use: two threads that wait for each other soon share one else.
fn stay_on(number: usize) {
    let all = sched_getaffinity(None).expect("a thread runs somewhere");
    let cpu = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).nth(number).expect("there are so many CPUs");
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).expect("it was one of them");
}

/// Does something on so many CPUs at once, and gives the times that it took.
fn on_all(cpus: u32, what: impl Fn(usize) -> Duration + Sync) -> Vec<Duration> {
    let barrier = Barrier::new(cpus as usize);
    thread::scope(|scope| {
        let (what, barrier) = (&what, &barrier);
        let start = |cpu| {
            scope.spawn(move || {
                stay_on(cpu);
                barrier.wait();
                what(cpu)
            })
        };
        let all: Vec<_> = (0..cpus as usize).map(start).collect();
        all.into_iter().map(|thread| thread.join().expect("nothing panics")).collect()
    })
}

fn mean(times: &[Duration]) -> Duration {
    times.iter().sum::<Duration>() / times.len() as u32
}

/// A rule of which each CPU knows all addresses.
fn warm(count: u8, prefix: u8, cpus: u32, addresses: u32) -> Rule {
    let rule = Rule::new(count, prefix, cpus);
    let mut source = Source::new(addresses);
    for cpu in 0..cpus as usize {
        for n in 0..addresses {
            source.address(n);
            rule.count(cpu, &source.packet);
        }
    }
    rule
}

/// The smallest network with so many addresses, of the two.
fn prefix(addresses: u32) -> u8 {
    if addresses <= 1 << SMALL {
        SMALL
    } else {
        LARGE
    }
}

/// Numbers of CPUs: 1, 2, 4 and so on, as many as there are.
fn cpus() -> impl Iterator<Item = u32> {
    let most = thread::available_parallelism().map_or(1, usize::from);
    (0..u32::BITS).map(|n| 1u32 << n).take_while(move |cpus| *cpus as usize <= most)
}

fn draw(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("draw");
    for cpus in cpus() {
        group.bench_function(BenchmarkId::new("nothing", cpus), |bencher| {
            bencher.iter_custom(|n| {
                mean(&on_all(cpus, |_| {
                    let mut source = Source::new(1 << 16);
                    // Not the packet itself, which nobody copies when it is counted.
                    timed(n, || {
                        black_box(source.next());
                    })
                }))
            });
        });
    }
}

fn hot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot");
    let all = ADDRESSES.map(|addresses| (addresses, prefix(addresses)));
    for (addresses, prefix) in all.into_iter().chain([(1 << 8, LARGE), (1 << 16, LARGE)]) {
        for (name, count) in [("traffic", TRAFFIC), ("all", ALL)] {
            let rule = warm(count, prefix, 1, addresses);
            let mut source = Source::new(addresses);
            let id = BenchmarkId::new(format!("{name}/{prefix}"), addresses);
            group.bench_function(id, |bencher| bencher.iter_custom(|n| count_on(&rule, 0, &mut source, n)));
            // For `cargo xtask bench`: criterion has no figures but times.
            println!("memory {name}/{prefix} {addresses} {:.1}", rule.memory(addresses));
        }
    }
}

fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cold");
    group.sample_size(10);
    let mut ballast = vec![0u8; EVICTION];
    for addresses in ADDRESSES {
        let prefix = prefix(addresses);
        let rule = warm(TRAFFIC, prefix, 1, addresses);
        let mut source = Source::new(addresses);
        let id = BenchmarkId::new(format!("traffic/{prefix}"), addresses);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|n| {
                let rounds = n.div_ceil(COLD);
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    ballast.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
                    sum += count_on(&rule, 0, &mut source, COLD);
                }
                sum.mul_f64(n as f64 / (rounds * COLD) as f64)
            });
        });
    }
}

/// The time of a packet on each of 1, 2, 4 and more CPUs that count for one rule at the same time: with few addresses
/// nothing but their own caches is in use, with many a cache that they share.
fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("threads");
    for addresses in [1 << 8, 1 << 16] {
        for cpus in cpus() {
            let rule = warm(TRAFFIC, SMALL, cpus, addresses);
            let count = |n| mean(&on_all(cpus, |cpu| count_on(&rule, cpu, &mut Source::new(addresses), n)));
            let id = BenchmarkId::new(format!("traffic/{SMALL}/{addresses}"), cpus);
            group.bench_function(id, |bencher| bencher.iter_custom(count));
        }
    }
}

/// The time of a packet while another CPU, if there is one, reads the table, again and again.
fn read_meanwhile(criterion: &mut Criterion) {
    if cpus().max() < Some(2) {
        return;
    }
    let addresses = 1 << 16;
    let rule = warm(TRAFFIC, SMALL, 1, addresses);
    let read = || {
        let mut line = String::new();
        for table in rule.ledgers.iter().filter_map(Ledger::traffic) {
            for number in 0..table.end() {
                let owner = Owner::One(table.key(number).expect("all addresses are known"));
                line.clear();
                report::write_row(&mut line, owner, &table.totals(number)).expect("a string takes it all");
                black_box(&line);
            }
        }
    };
    let mut group = criterion.benchmark_group("read");
    group.bench_function(BenchmarkId::new(format!("traffic/{SMALL}"), addresses), |bencher| {
        bencher.iter_custom(|n| {
            let done = AtomicBool::new(false);
            let times = on_all(2, |cpu| {
                if cpu > 0 {
                    while !done.load(Relaxed) {
                        read();
                    }
                    return Duration::ZERO;
                }
                let time = count_on(&rule, 0, &mut Source::new(addresses), n);
                done.store(true, Relaxed);
                time
            });
            times[0]
        });
    });
}

criterion_group!(benches, draw, hot, cold, threads, read_meanwhile);
criterion_main!(benches);
