//! What `quinn-udp` leaves out, by system calls of our own: runs for several receivers in one call
//! (`sendmmsg(2)`, each run cut by the kernel as `UDP_SEGMENT` says), and control messages that nobody
//! reads switched off. The only unsafe code of the workspace.
#![expect(unsafe_code, reason = "sendmmsg and setsockopt have no safe wrapper with what they need")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use libc::{c_int, c_void};

use crate::arena::Run;

/// Runs that one call sends at most.
pub(crate) const MAX_MESSAGES: usize = 32;

/// Sends runs in order, each to its receiver; returns how many the kernel took, at least one.
///
/// # Errors
/// Of the first run, which the kernel did not take then.
pub(crate) fn send_messages(
    socket: &impl AsRawFd,
    runs: &[(SocketAddr, Run<'_>)],
) -> io::Result<usize> {
    let runs = &runs[..runs.len().min(MAX_MESSAGES)];
    let mut addresses = [Address::UNSET; MAX_MESSAGES];
    let mut controls = [Control::UNSET; MAX_MESSAGES];
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_MESSAGES];
    // SAFETY: plain data of C, of which all zeros is a valid value: null pointers and no lengths.
    let mut headers: [libc::mmsghdr; MAX_MESSAGES] = unsafe { zeroed() };
    for (index, (to, run)) in runs.iter().enumerate() {
        addresses[index] = Address::from(*to);
        // The kernel only reads: `iovec` is shared with calls that write.
        let base = run.contents.as_ptr().cast_mut().cast();
        parts[index] = libc::iovec { iov_base: base, iov_len: run.contents.len() };
        controls[index].segment_size = run.segment_size as u16;
        let header = &mut headers[index].msg_hdr;
        header.msg_namelen = addresses[index].len();
        header.msg_iovlen = 1;
        if run.segments > 1 {
            header.msg_controllen = size_of::<Control>() as _;
        }
    }
    // Nothing below moves or changes what the pointers lead to.
    for (index, header) in headers[..runs.len()].iter_mut().enumerate() {
        header.msg_hdr.msg_name = addresses.as_mut_ptr().wrapping_add(index).cast();
        header.msg_hdr.msg_iov = parts.as_mut_ptr().wrapping_add(index);
        if header.msg_hdr.msg_controllen > 0 {
            header.msg_hdr.msg_control = controls.as_mut_ptr().wrapping_add(index).cast();
        }
    }
    // SAFETY: the first `runs.len()` headers are filled in: each name points to a socket address of
    // the given length, each iovec to one borrowed run, each control to a `Control` or nothing; all
    // of it lives until the call returns, and the kernel writes only `msg_len` of the headers.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), runs.len() as _, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Switches off the control messages that `quinn-udp` asks for and that nobody here reads: time
/// stamps, and the addresses and traffic classes of what was received. Each costs the kernel time
/// for every datagram.
pub(crate) fn silence(socket: &impl AsRawFd) {
    let fd = socket.as_raw_fd();
    for (level, name) in [
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
        (libc::IPPROTO_IP, libc::IP_RECVTOS),
        (libc::IPPROTO_IP, libc::IP_PKTINFO),
        (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    ] {
        switch_off(fd, level, name);
    }
}

fn switch_off(fd: RawFd, level: c_int, name: c_int) {
    let off: c_int = 0;
    let (value, len) = ((&raw const off).cast::<c_void>(), size_of::<c_int>());
    // SAFETY: the value is a `c_int` that lives until the call returns. Failure leaves things as they
    // were: options of IPv6 do not exist on a socket of IPv4.
    unsafe { libc::setsockopt(fd, level, name, value, len as _) };
}

/// A socket address as the kernel takes it.
#[derive(Clone, Copy)]
#[repr(C)]
union Address {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    family: libc::sa_family_t,
}

impl Address {
    const UNSET: Self = Self { family: libc::AF_UNSPEC as _ };

    fn len(&self) -> libc::socklen_t {
        // SAFETY: every kind of address begins with its family.
        let family = unsafe { self.family };
        let len = match c_int::from(family) {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
            _ => size_of::<libc::sa_family_t>(),
        };
        len as _
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as _,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(addr) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as _,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: addr.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                    sin6_scope_id: addr.scope_id(),
                },
            },
        }
    }
}

/// One control message: the size of the segments of a run (`UDP_SEGMENT`, udp(7)). Laid out as
/// cmsg(3) asks: the data behind the header, the whole filled up to the header's alignment.
#[derive(Clone, Copy)]
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    segment_size: u16,
}

impl Control {
    const UNSET: Self = {
        // SAFETY: plain data of C; some systems' headers have padding beside what is set below.
        let mut header: libc::cmsghdr = unsafe { zeroed() };
        header.cmsg_level = libc::SOL_UDP;
        header.cmsg_type = libc::UDP_SEGMENT;
        // SAFETY: a pure computation.
        header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<u16>() as _) } as _;
        Self { header, segment_size: 0 }
    };
}

// What the kernel reads of a control message is what the macros of cmsg(3) would have laid out.
const _: () = {
    // SAFETY: pure computations.
    let (space, data) = unsafe { (libc::CMSG_SPACE(size_of::<u16>() as _), libc::CMSG_LEN(0)) };
    assert!(size_of::<Control>() == space as usize);
    assert!(std::mem::offset_of!(Control, segment_size) == data as usize);
};
