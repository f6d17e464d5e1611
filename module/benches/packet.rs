// SPDX-License-Identifier: GPL-2.0

//! Benchmarks of parsing and counting a packet on the host, without the kernel.
//!
//! A packet is a UDP datagram from a random address to the address that is half of all addresses
//! away. So there are as many flows as addresses, and both ends are counted. Only the addresses
//! differ, so all packets are written into the same buffer: the rows miss the cache, the packets do
//! not. Every figure includes the generation of the packet. `draw` measures that alone, with the
//! generator of `hot` and `threads`. Those of the others take nearly the same time.
//!
//! The CPU's branch predictor learns that all packets of `hot` take the same path. In `mixed` one
//! end is inside, and neither this end nor the protocol can be predicted.

use std::{
    fs,
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
        cpu_tables::{self, AllCpus, CpuTables},
        flow::{Clock, Flows, Ticks},
        hash::Seed,
        key::Owner,
        network::Network,
        params::Params,
        recent_flows::CpusWithFlows,
        report::{Form, TRAFFIC_HEADER},
        row::Counted,
        table::Table,
    },
    host::{Bytes, Collected, Heap},
};

/// The numbers of addresses that packets are drawn from.
const ADDRESSES: [u32; 4] = [1, 1 << 8, 1 << 16, 1_000_000];
/// The prefix length of a network with direct rows.
const SMALL: u8 = 16;
/// The prefix length of a network with hashed rows.
const LARGE: u8 = 8;
/// 10.0.0.0, the first address of both networks.
const INSIDE: u32 = 0x0a00_0000;
/// 11.0.0.0, which is outside of both networks.
const OUTSIDE: u32 = 0x0b00_0000;

const TRAFFIC: u8 = abi::COUNT_TRAFFIC;
const ALL: u8 = abi::COUNT_TRAFFIC | abi::COUNT_IPCONN | abi::COUNT_PORTCONN;

/// The largest number of recent flows of each kind, as by default in the kernel.
const FLOWS: u32 = 1_000_000;

/// The bytes to write so that everything else is evicted from the caches of most CPUs.
const EVICTION: usize = 256 << 20;
/// The largest number of packets after an eviction. With few addresses there are fewer packets, so
/// that no row is used twice.
const COLD: u32 = 256;

/// The tables of all CPUs for one rule.
struct Rule {
    network: Network<u32>,
    flows: Flows,
    with_flows: CpusWithFlows,
    cpus: Vec<CpuTables<u32, Heap>>,
}

impl Rule {
    fn new(count: u8, prefix: u8, cpus: u32) -> Self {
        let params = params(count, prefix, cpus);
        let seed = Seed::new(0x5eed);
        let flows = Flows::new(
            seed,
            Clock {
                ticks_per_second: 1000,
            },
            FLOWS,
        );
        let tables = |cpu| {
            let Ok(tables) = CpuTables::new(cpu, &params, seed, &flows, &Heap::ENDLESS);
            tables
        };
        Self {
            network: params.network,
            flows,
            with_flows: CpusWithFlows::default(),
            cpus: (0..cpus).map(tables).collect(),
        }
    }

    /// Counts a packet as the match does in the kernel.
    fn count(&self, cpu: usize, packet: &[u8]) -> bool {
        self.cpus
            .get(cpu)
            .is_some_and(|own| cpu_tables::count(self, own, Bytes(packet)))
    }

    /// The bytes of memory per address on one CPU: rows of bytes and of connections, and their
    /// index.
    fn memory(&self, addresses: u32) -> f64 {
        let traffic = self
            .cpus
            .iter()
            .filter_map(CpuTables::traffic)
            .map(Table::memory);
        let ipconn = self
            .cpus
            .iter()
            .filter_map(CpuTables::ipconn)
            .map(Table::memory);
        let bytes: usize = traffic.chain(ipconn).sum();
        bytes as f64 / (f64::from(addresses) * self.cpus.len() as f64)
    }
}

impl AllCpus<u32, Heap> for Rule {
    fn get(&self, cpu: u32) -> Option<&CpuTables<u32, Heap>> {
        self.cpus.get(cpu as usize)
    }

    fn with_flows(&self) -> &CpusWithFlows {
        &self.with_flows
    }

    fn network(&self) -> &Network<u32> {
        &self.network
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
    netbase[..4].copy_from_slice(&INSIDE.to_be_bytes());
    netmask[..4].copy_from_slice(&(u32::MAX << (32 - prefix)).to_be_bytes());
    name[0] = b't';
    let internal = abi::INTERNAL_ANY;
    let info = XtTrafficMtinfo {
        netbase,
        netmask,
        name,
        count,
        internal,
        clear_on_read: 0,
        shared_bits: 0,
        hash_size: 0,
    };
    Params::from_info(0, &info, cpus).expect("the parameters are valid")
}

/// A generator of packets.
struct PacketSource {
    state: u64,
    addresses: u32,
    packet: [u8; 28],
}

impl PacketSource {
    fn new(addresses: u32) -> Self {
        let mut packet = [0; 28];
        packet[0] = 0x45;
        packet[9] = 17;
        packet[20..24].copy_from_slice(&[0x30, 0x39, 0, 53]);
        Self {
            state: 0x853c_49e6_748f_ea9b,
            addresses,
            packet,
        }
    }

    /// A packet with both ends inside.
    fn next(&mut self) -> &[u8; 28] {
        let one = self.draw();
        self.write(one, INSIDE, INSIDE)
    }

    /// A TCP or UDP packet with one end inside, in either direction.
    fn next_mixed(&mut self) -> &[u8; 28] {
        let one = self.draw();
        let drawn = (self.state >> 29) as u8;
        self.packet[9] = if drawn & 1 == 0 { 6 } else { 17 };
        let sends = u32::from(drawn >> 1 & 1);
        self.write(
            one,
            INSIDE + sends * (OUTSIDE - INSIDE),
            OUTSIDE - sends * (OUTSIDE - INSIDE),
        )
    }

    /// A packet from an address that is far from the one before. Source addresses repeat only after
    /// half of all addresses were used, and the destinations are from the other half. There must be
    /// at least two addresses.
    fn next_other(&mut self) -> &[u8; 28] {
        self.state = self.state.wrapping_add(1);
        let half = u64::from(self.addresses / 2);
        // The factor is coprime to `half`, so all addresses of the half occur before one repeats.
        let one = self.state.wrapping_mul(0x9e37_79b1) % half;
        self.write(one as u32, INSIDE, INSIDE)
    }

    /// A datagram of a flow that is different from all before it, for 2^32 packets.
    fn next_flow(&mut self) -> &[u8; 28] {
        self.state = self.state.wrapping_add(1);
        self.packet[20..22].copy_from_slice(&(self.state as u16).to_be_bytes());
        let one = (self.state >> 16) as u32 % self.addresses;
        self.write(one, INSIDE, OUTSIDE)
    }

    /// The number of a random address.
    fn draw(&mut self) -> u32 {
        self.state = self
            .state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        // The upper half of a product is cheap, and nearly uniform:
        // https://lemire.me/blog/2016/06/27/a-fast-alternative-to-the-modulo-reduction/
        (((self.state >> 32) * u64::from(self.addresses)) >> 32) as u32
    }

    /// Writes the addresses of a packet: `source` plus the number `one`, and `destination` plus the
    /// number that is half of all addresses away.
    ///
    /// Each address is written with one store. If a load spans several pending stores, the CPU
    /// cannot forward their data and must wait until all stores before are complete.
    fn write(&mut self, one: u32, source: u32, destination: u32) -> &[u8; 28] {
        let other = one + self.addresses / 2;
        let other = if other < self.addresses {
            other
        } else {
            other - self.addresses
        };
        self.packet[12..16].copy_from_slice(&(source + one).to_be_bytes());
        self.packet[16..20].copy_from_slice(&(destination + other).to_be_bytes());
        &self.packet
    }
}

fn count_on(rule: &Rule, cpu: usize, source: &mut PacketSource, packets: u64) -> Duration {
    timed(packets, || rule.count(cpu, black_box(source.next())))
}

fn timed<T>(times: u64, mut what: impl FnMut() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..times {
        black_box(what());
    }
    begun.elapsed()
}

/// The CPUs that this thread may use: one for each core.
fn cores() -> Vec<usize> {
    let all = sched_getaffinity(None).expect("cannot read the affinity of this thread");
    let is_first = |cpu: &usize| {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let siblings = fs::read_to_string(file).unwrap_or_default();
        let first = siblings
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|first| first.parse().ok());
        // A CPU without this file has no siblings.
        first.is_none_or(|first: usize| first == *cpu || !all.is_set(first))
    };
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| all.is_set(*cpu))
        .filter(is_first)
        .collect()
}

/// Pins this thread to a CPU. The scheduler tends to move two threads that wait for each other to
/// the same core.
fn pin_to(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).expect("cannot set the affinity of this thread");
}

/// Runs `task` on several CPUs at the same time and returns the time that each run took.
fn on_all(cpus: u32, task: impl Fn(usize) -> Duration + Sync) -> Vec<Duration> {
    let (barrier, cores) = (Barrier::new(cpus as usize), cores());
    thread::scope(|scope| {
        let (task, barrier, cores) = (&task, &barrier, &cores);
        let start = |cpu: usize| {
            scope.spawn(move || {
                pin_to(cores[cpu]);
                barrier.wait();
                task(cpu)
            })
        };
        let all: Vec<_> = (0..cpus as usize).map(start).collect();
        all.into_iter()
            .map(|thread| thread.join().expect("a thread panicked"))
            .collect()
    })
}

/// The time of the slowest CPU.
fn longest(times: &[Duration]) -> Duration {
    times.iter().max().copied().unwrap_or_default()
}

/// A rule for which every CPU has a row for every address.
fn warm(count: u8, prefix: u8, cpus: u32, addresses: u32) -> Rule {
    let rule = Rule::new(count, prefix, cpus);
    let mut source = PacketSource::new(addresses);
    for cpu in 0..cpus as usize {
        for n in 0..addresses {
            rule.count(cpu, source.write(n, INSIDE, INSIDE));
        }
    }
    rule
}

/// All numbers of addresses and the prefix length of a network: the small network for those numbers
/// that fit, then the large one for all of them.
fn networks() -> impl Iterator<Item = (u32, u8)> {
    let direct = ADDRESSES
        .into_iter()
        .filter(|addresses| *addresses <= 1 << SMALL);
    direct
        .map(|addresses| (addresses, SMALL))
        .chain(ADDRESSES.map(|addresses| (addresses, LARGE)))
}

/// The numbers of CPUs to use: 1, 2, 4 and so on, up to the number of cores.
fn cpus() -> impl Iterator<Item = u32> {
    let most = cores().len();
    (0..u32::BITS)
        .map(|n| 1u32 << n)
        .take_while(move |cpus| *cpus as usize <= most)
}

fn draw(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("draw");
    for cpus in cpus() {
        group.bench_function(BenchmarkId::new("nothing", cpus), |bencher| {
            bencher.iter_custom(|n| {
                longest(&on_all(cpus, |_| {
                    let mut source = PacketSource::new(1 << 16);
                    // The result is a reference: counting does not copy the packet either.
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
    for (addresses, prefix) in networks() {
        for (name, count) in [("traffic", TRAFFIC), ("all", ALL)] {
            let rule = warm(count, prefix, 1, addresses);
            let mut source = PacketSource::new(addresses);
            let id = BenchmarkId::new(format!("{name}/{prefix}"), addresses);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|n| count_on(&rule, 0, &mut source, n));
            });
            // `cargo xtask bench` reads this line, because criterion reports nothing but times.
            println!(
                r#"{{"memory": {{"case": "{name}/{prefix}", "addresses": {addresses}, "bytes": {:.1}}}}}"#,
                rule.memory(addresses)
            );
        }
    }
}

fn mixed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mixed");
    for (addresses, prefix) in networks() {
        let rule = warm(TRAFFIC, prefix, 1, addresses);
        let mut source = PacketSource::new(addresses);
        let mut count = |n| timed(n, || rule.count(0, black_box(source.next_mixed())));
        let id = BenchmarkId::new(format!("traffic/{prefix}"), addresses);
        group.bench_function(id, |bencher| bencher.iter_custom(&mut count));
    }
}

fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cold");
    group.sample_size(10);
    let mut ballast = vec![0u8; EVICTION];
    // One address would allow one packet per eviction, and reading the clock would take most of the
    // time.
    for (addresses, prefix) in networks().filter(|(addresses, _)| *addresses > 1) {
        for (name, count) in [("traffic", TRAFFIC), ("all", ALL)] {
            let rule = warm(count, prefix, 1, addresses);
            let mut source = PacketSource::new(addresses);
            // Each packet uses two rows.
            let batch = u64::from((addresses / 2).min(COLD));
            let id = BenchmarkId::new(format!("{name}/{prefix}"), addresses);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|n| {
                    let rounds = n.div_ceil(batch);
                    let mut sum = Duration::ZERO;
                    for _ in 0..rounds {
                        ballast
                            .iter_mut()
                            .step_by(64)
                            .for_each(|byte| *byte = byte.wrapping_add(1));
                        sum += timed(batch, || rule.count(0, black_box(source.next_other())));
                    }
                    sum.mul_f64(n as f64 / (rounds * batch) as f64)
                });
            });
        }
    }
}

/// The time per packet on the slowest of several CPUs that count for one rule at the same time. Few
/// addresses fit in the caches of each core, many need the cache that the cores share.
fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("threads");
    for (addresses, prefix) in networks() {
        for cpus in cpus() {
            let rule = warm(TRAFFIC, prefix, cpus, addresses);
            let count = |n| {
                longest(&on_all(cpus, |cpu| {
                    count_on(&rule, cpu, &mut PacketSource::new(addresses), n)
                }))
            };
            let id = BenchmarkId::new(format!("traffic/{prefix}/{addresses}"), cpus);
            group.bench_function(id, |bencher| bencher.iter_custom(count));
        }
    }
}

/// The time per packet if each is the first of its flow, so that other CPUs are searched. Either
/// this CPU alone has flows, or all of them have.
fn search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    for cpus in [1, 8, 64, 256] {
        for (name, active) in [("alone", 1), ("all", cpus)] {
            let rule = Rule::new(abi::COUNT_IPCONN, SMALL, cpus);
            let mut source = PacketSource::new(1 << 16);
            for cpu in 0..active {
                rule.count(cpu as usize, source.next_flow());
            }
            let mut count = |n| timed(n, || rule.count(0, black_box(source.next_flow())));
            let id = BenchmarkId::new(name, cpus);
            group.bench_function(id, |bencher| bencher.iter_custom(&mut count));
        }
    }
}

/// The time per packet while another CPU reads the table in a loop. Skipped on a single CPU.
fn read_meanwhile(criterion: &mut Criterion) {
    if cpus().max() < Some(2) {
        return;
    }
    let addresses = 1 << 16;
    let rule = warm(TRAFFIC, SMALL, 1, addresses);
    let form = Form::new(TRAFFIC_HEADER);
    let read = || {
        let mut line = String::new();
        for table in rule.cpus.iter().filter_map(CpuTables::traffic) {
            let mut rows = Collected::default();
            let Ok(_) = table.read(&mut rows);
            for Counted { key, totals, .. } in rows.0 {
                line.clear();
                form.write_row(&mut line, Owner::One(key), &totals)
                    .expect("writing to a string cannot fail");
                black_box(&line);
            }
        }
    };
    let mut group = criterion.benchmark_group("read");
    group.bench_function(
        BenchmarkId::new(format!("traffic/{SMALL}"), addresses),
        |bencher| {
            bencher.iter_custom(|n| {
                let done = AtomicBool::new(false);
                let times = on_all(2, |cpu| {
                    if cpu > 0 {
                        while !done.load(Relaxed) {
                            read();
                        }
                        return Duration::ZERO;
                    }
                    let time = count_on(&rule, 0, &mut PacketSource::new(addresses), n);
                    done.store(true, Relaxed);
                    time
                });
                times[0]
            });
        },
    );
}

/// Shorter runs than criterion's default of eight seconds: there are many benchmarks, and all of
/// them are stable enough.
fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = draw, hot, mixed, cold, threads, search, read_meanwhile
}
criterion_main!(benches);
