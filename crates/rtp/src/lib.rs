//! Views of the packets of a WebRTC session: RTP, RTCP, header extensions, codec payload headers.
//!
//! Bytes from the network come in, typed borrowed views go out; writers turn typed values back
//! into bytes in a buffer of the caller. Nothing here does I/O, keeps a clock, or allocates while
//! parsing (the one exception is the template structure of a dependency descriptor, which comes
//! once per key frame). A parsed view holds sub-slices that were checked when it was made, so no
//! accessor can leave the packet or panic.

pub mod codec;
pub mod dd;
pub mod demux;
pub mod ext;
pub mod ntp;
pub mod packet;
pub mod rtcp;
pub mod rtx;
pub mod seq;

mod bits;
mod bytes;

pub use codec::{Codec, MediaKind, PayloadInfo};
pub use ext::{ExtensionKind, ExtensionMap};
pub use ntp::NtpTime;
pub use packet::{RtpError, RtpHeaderWriter, RtpView};
pub use rtcp::{Rtcp, RtcpError, RtcpIter};
pub use seq::{SeqUnwrapper, TsUnwrapper};
