// SPDX-License-Identifier: GPL-2.0-only
//! The QEMU process of a virtual machine: its arguments, its sockets, its end.
//!
//! The harness talks to the system inside over one socket ([`AGENT`] or [`TERMINAL`]), to QEMU over
//! another ([`Qmp`]), and sends frames over one socket per port ([`Port`]).

mod port;
mod qmp;
mod starter;

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use tempfile::TempDir;

pub use self::port::{MAX_FRAME, Sender, check_length, mac_of_port};

pub(crate) use self::port::Port;
pub(crate) use self::qmp::Qmp;
pub(crate) use self::starter::spawn;
use crate::poll;
use crate::terminal_text::plain;

/// The program, and the arguments for a machine without default devices.
pub(crate) const QEMU: [&str; 5] = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"];

/// The output of `qemu-system-x86_64 --version`. It is empty if QEMU cannot run; then no guest
/// starts.
pub(crate) static QEMU_VERSION: LazyLock<String> = LazyLock::new(|| {
    let output = Command::new(QEMU[0]).arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
});

/// The machine type. (`pc` works too, but its ACPI interrupt routing takes a debug kernel ten
/// seconds for each device.)
pub(crate) const MACHINE: &str = "q35";

/// A socket path holds 108 bytes with its final NUL (unix(7)); the longest name in the folder has
/// 10.
const MAX_FOLDER: usize = 90;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The end of the harness's channel in the virtual machine: a virtio-serial port, for the guest's
/// agent.
pub(crate) const AGENT: &[&str] =
    &["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=channel,name=agent"];
/// The second serial line, with a login shell. The first one is the console: kernel messages would
/// mix with the output of commands.
pub(crate) const TERMINAL: &[&str] = &["-serial", "chardev:channel"];

/// A QEMU that has not started yet: its command line and the folder with its files.
pub(crate) struct Setup {
    pub(crate) command: Command,
    folder: TempDir,
    ports: Vec<Port>,
}

impl Setup {
    /// `words` is the program and its first arguments.
    pub(crate) fn new(words: &[&str]) -> Result<Self> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        Ok(Self { command, folder: create_folder()?, ports: Vec::new() })
    }

    /// The folder for files of this virtual machine. It is removed with the process.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds network port `n`. `options` are more options of the virtio-net device.
    pub(crate) fn add_port(&mut self, n: usize, options: &str) -> Result<()> {
        let [ours, theirs] = ["host", "guest"].map(|end| self.folder().join(format!("{end}{n}")));
        let netdev = format!(
            "dgram,id=net{n},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            escape(&theirs),
            escape(&ours)
        );
        self.ports.push(Port::bind(&ours, theirs, format!("eth{n}"))?);
        self.add_network_device(n, &netdev, options);
        Ok(())
    }

    /// Adds network device `n` with a backend.
    pub(crate) fn add_network_device(&mut self, n: usize, netdev: &str, options: &str) {
        let mac = mac_of_port(n).map(|byte| format!("{byte:02x}")).join(":");
        let device =
            format!("virtio-net-pci,id=port{n},netdev=net{n},mac={mac},romfile=,addr={:#x}{options}", 0x10 + n);
        self.command.args(["-netdev", netdev, "-device", &device]);
    }

    /// Starts QEMU with the arguments for the channel, and connects to it. Returns the stream of
    /// the channel.
    pub(crate) fn start(mut self, channel: &[&str]) -> Result<(Qemu, UnixStream)> {
        let path = |name: &str| escape(&self.folder.path().join(name));
        let chardevs = [
            format!("file,id=console,path={}", path("console")),
            format!("socket,id=channel,server=on,wait=off,path={}", path("channel")),
            format!("socket,id=qmp,server=on,wait=off,path={}", path("qmp")),
        ];
        for chardev in &chardevs {
            self.command.args(["-chardev", chardev]);
        }
        self.command.args(["-serial", "chardev:console", "-mon", "chardev=qmp,mode=control"]);
        self.command.args(channel);
        let ports = std::mem::take(&mut self.ports);
        let mut process = self.spawn()?;
        let mut connect = || -> Result<_> {
            let channel = process.connect("channel")?;
            let qmp = Qmp::new(process.connect("qmp")?)?;
            // QEMU answers commands after it has bound its ends of the ports.
            ports.iter().try_for_each(Port::connect)?;
            Ok((channel, qmp))
        };
        match connect() {
            Ok((channel, qmp)) => Ok((Qemu { qmp, ports, process }, channel)),
            Err(error) => Err(error.context(process.post_mortem())),
        }
    }

    /// Starts QEMU without connecting to it. Its output goes to a file.
    pub(crate) fn spawn(mut self) -> Result<Process> {
        let log = fs::File::create(self.folder().join("qemu.log"))?.into_parts().0;
        self.command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Process { child: spawn(self.command)?, folder: self.folder })
    }
}

/// A running QEMU with its connections. Dropping it kills the process.
pub(crate) struct Qemu {
    pub(crate) qmp: Qmp,
    pub(crate) ports: Vec<Port>,
    pub(crate) process: Process,
}

impl Qemu {
    /// Adds the state and the last output of QEMU to an I/O error: the process may have died.
    pub(crate) fn explain<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error.is::<std::io::Error>() {
            true => error.context(self.process.post_mortem()),
            false => error,
        })
    }
}

/// A QEMU process and the folder with its files. Dropping it kills the process and removes the
/// folder. The process is also killed when this one ends without dropping it.
pub(crate) struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Connects to a socket in the folder, on which QEMU listens when it has started.
    fn connect(&mut self, name: &str) -> Result<UnixStream> {
        poll(START_TIMEOUT, "QEMU to start", || match UnixStream::connect(self.folder.path().join(name)) {
            Ok(stream) => Ok(Some(stream)),
            // The socket does not exist yet, or QEMU does not listen on it yet.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                match self.child.try_wait()? {
                    Some(status) => bail!("QEMU did not start ({status})"),
                    None => Ok(None),
                }
            }
            Err(error) => Err(error).with_context(|| format!("cannot connect to QEMU's socket {name}")),
        })
    }

    /// Waits until the process ends.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        poll(timeout, "QEMU to end", || Ok(self.child.try_wait()?))
    }

    /// Describes a failure: whether QEMU is running, and the last lines of its output and of the
    /// console.
    pub(crate) fn post_mortem(&mut self) -> String {
        // The connections close shortly before the process ends.
        let state = match self.wait(Duration::from_millis(500)) {
            Ok(status) => format!("QEMU has ended ({status})"),
            Err(_) => "QEMU is still running".into(),
        };
        let tail = |name: &str| {
            let text = plain(&self.read(name));
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        format!("{state}; its output:\n{}\nthe console:\n{}", tail("qemu.log"), tail("console"))
    }

    /// The whole output of the console.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&self.read("console")).into_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `kill` fails when the process has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A folder for the files of one virtual machine: in the default place for temporary files or, if
/// its path is too long for a socket, in /tmp.
fn create_folder() -> Result<TempDir> {
    let default = std::env::temp_dir();
    let place = if default.as_os_str().len() < MAX_FOLDER - 16 { default.as_path() } else { Path::new("/tmp") };
    tempfile::Builder::new().prefix("xt-vm-").tempdir_in(place).with_context(|| place.display().to_string())
}

/// A path as a value in QEMU's option strings, in which two commas stand for one.
pub(crate) fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fd::OwnedFd;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    /// Makes the test below start a process.
    const STARTS_A_PROCESS: &str = "XT_VM_STARTS_A_PROCESS";

    // The test runs itself as another program, which it kills.
    #[test]
    fn a_virtual_machine_ends_when_its_program_is_killed_and_not_before() {
        const NAME: &str = "qemu::tests::a_virtual_machine_ends_when_its_program_is_killed_and_not_before";
        if std::env::var_os(STARTS_A_PROCESS).is_some() {
            return start_and_wait();
        }
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args([NAME, "--exact", "--nocapture"]).env(STARTS_A_PROCESS, "1");
        let mut program = program.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let pid = lines.find_map(|line| line.unwrap().split_once("started ")?.1.parse().ok()).unwrap();
        let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        assert!(!ends_within(&process, 1), "it ends with the thread that has asked for it");
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(ends_within(&process, 10), "it is still running");
    }

    /// Starts a process from a thread that ends.
    fn start_and_wait() {
        let start = || Setup::new(&["sleep", "60"]).unwrap().spawn().unwrap();
        let mut process = thread::spawn(start).join().unwrap();
        println!("started {}", process.child.id());
        process.wait(Duration::from_secs(60)).unwrap();
    }

    fn ends_within(process: &OwnedFd, seconds: i64) -> bool {
        let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }
}
