//! One packet buffer.

use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::slice;

use arrayvec::ArrayVec;
use dpdk_sys::rte_mbuf;
use octoplane_packet::{ChecksumStatus, NoRoom, PacketBuf};

/// A packet in a buffer of a [`crate::Mempool`], and the right to use and free it. Dropping it frees it;
/// [`free_all`] frees many faster.
///
/// The accessors read the buffer's header at offsets taken from the DPDK headers of this build, with no call.
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<rte_mbuf>,
}

// SAFETY: a buffer belongs to no thread; freeing it works on any.
unsafe impl Send for Mbuf {}

/// Reads the header field of type `$t` at offset constant `$offset`.
macro_rules! field {
    ($mbuf:expr, $offset:ident: $t:ty) => {{
        // SAFETY: a live buffer has a field of this width at this offset (checked where the shim is compiled), and
        // owning the buffer excludes writers.
        unsafe { $mbuf.raw.as_ptr().cast::<u8>().add(dpdk_sys::$offset as usize).cast::<$t>().read() }
    }};
    ($mbuf:expr, $offset:ident: $t:ty = $value:expr) => {{
        let value: $t = $value;
        // SAFETY: as for reading; the exclusive borrow excludes readers.
        unsafe { $mbuf.raw.as_ptr().cast::<u8>().add(dpdk_sys::$offset as usize).cast::<$t>().write(value) }
    }};
}

impl Mbuf {
    /// Takes over a buffer.
    ///
    /// # Safety
    /// `raw` is a live buffer with a reference count of 1 that nobody else uses or frees, its lengths are within its data
    /// room, and its data may be written.
    #[inline(always)]
    #[must_use]
    pub unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        let mbuf = Self { raw };
        debug_assert_eq!(field!(mbuf, OCT_MBUF_REFCNT: u16), 1, "a shared packet buffer");
        mbuf
    }

    /// Gives the buffer away without freeing it.
    #[inline(always)]
    #[must_use]
    pub fn into_raw(self) -> NonNull<rte_mbuf> {
        let raw = self.raw;
        mem::forget(self);
        raw
    }

    /// The buffer's header, still owned by `self`.
    #[inline(always)]
    #[must_use]
    pub fn as_ptr(&self) -> *mut rte_mbuf {
        self.raw.as_ptr()
    }

    #[inline(always)]
    fn data_off(&self) -> u16 {
        field!(self, OCT_MBUF_DATA_OFF: u16)
    }

    #[inline(always)]
    fn data_len(&self) -> u16 {
        field!(self, OCT_MBUF_DATA_LEN: u16)
    }

    #[inline(always)]
    fn buf_len(&self) -> u16 {
        field!(self, OCT_MBUF_BUF_LEN: u16)
    }

    #[inline(always)]
    fn data_ptr(&self) -> *mut u8 {
        let buf = field!(self, OCT_MBUF_BUF_ADDR: *mut u8);
        // SAFETY: the data starts within the buffer.
        unsafe { buf.add(self.data_off().into()) }
    }

    /// Sets the length of the first segment and carries the difference over to the packet's.
    #[inline(always)]
    fn set_data_len(&mut self, len: u16) {
        let pkt_len = self
            .packet_len()
            .wrapping_sub(self.data_len().into())
            .wrapping_add(len.into());
        field!(self, OCT_MBUF_DATA_LEN: u16 = len);
        field!(self, OCT_MBUF_PKT_LEN: u32 = pkt_len);
    }

    /// Bytes in all segments together.
    #[inline(always)]
    #[must_use]
    pub fn packet_len(&self) -> u32 {
        field!(self, OCT_MBUF_PKT_LEN: u32)
    }

    /// Segments the packet is made of.
    #[inline(always)]
    #[must_use]
    pub fn segments(&self) -> u16 {
        field!(self, OCT_MBUF_NB_SEGS: u16)
    }

    /// Bytes of the first segment's buffer: headroom, data and tailroom.
    #[inline(always)]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buf_len().into()
    }

    /// Number of the port the packet came in at. Meaningless for a packet that was not received.
    #[inline(always)]
    #[must_use]
    pub fn port(&self) -> u16 {
        field!(self, OCT_MBUF_PORT: u16)
    }

    /// The `RTE_MBUF_F_*` flags.
    #[inline(always)]
    #[must_use]
    pub fn ol_flags(&self) -> u64 {
        field!(self, OCT_MBUF_OL_FLAGS: u64)
    }

    /// The hash the device spread the packet by, if it gives one.
    #[inline(always)]
    #[must_use]
    pub fn rss_hash(&self) -> Option<u32> {
        let has = self.ol_flags() & u64::from(dpdk_sys::OCT_MBUF_RX_RSS_HASH) != 0;
        has.then(|| field!(self, OCT_MBUF_RSS_HASH: u32))
    }

    /// Asks the CPU to fetch the buffer's header, which every accessor reads first.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        prefetch(self.raw.as_ptr().cast());
    }

    /// The pool the buffer returns to.
    #[inline(always)]
    pub(crate) fn pool(&self) -> *const dpdk_sys::rte_mempool {
        field!(self, OCT_MBUF_POOL: *const dpdk_sys::rte_mempool)
    }
}

/// Fetches the cache line at `address` into all levels. A hint: any address is allowed.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction never faults.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the instruction never faults and changes nothing the compiler knows of.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
}

impl PacketBuf for Mbuf {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        // SAFETY: the first segment's data lies in its buffer, was initialised when the pool's memory was mapped, and
        // belongs to `self`.
        unsafe { slice::from_raw_parts(self.data_ptr(), self.data_len().into()) }
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `data`; the reference count is 1 and the borrow exclusive.
        unsafe { slice::from_raw_parts_mut(self.data_ptr(), self.data_len().into()) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.data_len().into()
    }

    #[inline(always)]
    fn headroom(&self) -> usize {
        self.data_off().into()
    }

    #[inline(always)]
    fn tailroom(&self) -> usize {
        // Behind the first segment of several there is no room: the packet goes on in the next.
        if !self.is_contiguous() {
            return 0;
        }
        usize::from(self.buf_len()) - usize::from(self.data_off()) - usize::from(self.data_len())
    }

    #[inline(always)]
    fn prepend(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        let available = self.headroom();
        if n > available {
            return Err(NoRoom {
                requested: n,
                available,
            });
        }
        // `n` is at most data_off, so it fits, as does the sum: both are within buf_len.
        field!(self, OCT_MBUF_DATA_OFF: u16 = self.data_off() - n as u16);
        self.set_data_len(self.data_len() + n as u16);
        Ok(self.data_mut())
    }

    #[inline(always)]
    fn append(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        let available = self.tailroom();
        if n > available {
            return Err(NoRoom {
                requested: n,
                available,
            });
        }
        self.set_data_len(self.data_len() + n as u16);
        Ok(self.data_mut())
    }

    #[inline(always)]
    fn trim_front(&mut self, n: usize) -> Result<(), NoRoom> {
        let available = self.len();
        if n > available {
            return Err(NoRoom {
                requested: n,
                available,
            });
        }
        field!(self, OCT_MBUF_DATA_OFF: u16 = self.data_off() + n as u16);
        self.set_data_len(self.data_len() - n as u16);
        Ok(())
    }

    #[inline(always)]
    fn trim_back(&mut self, n: usize) -> Result<(), NoRoom> {
        // The back of a packet in several segments is not in the first.
        let available = if self.is_contiguous() { self.len() } else { 0 };
        if n > available {
            return Err(NoRoom {
                requested: n,
                available,
            });
        }
        self.set_data_len(self.data_len() - n as u16);
        Ok(())
    }

    #[inline(always)]
    fn is_contiguous(&self) -> bool {
        self.segments() == 1
    }

    #[inline(always)]
    fn ip_checksum_status(&self) -> ChecksumStatus {
        match self.ol_flags() as u32 & dpdk_sys::OCT_MBUF_RX_IP_CKSUM_MASK {
            dpdk_sys::OCT_MBUF_RX_IP_CKSUM_GOOD => ChecksumStatus::Good,
            dpdk_sys::OCT_MBUF_RX_IP_CKSUM_BAD => ChecksumStatus::Bad,
            // With NONE a virtual device says that the sum is not filled in, which only software can judge.
            _ => ChecksumStatus::Unknown,
        }
    }

    #[inline(always)]
    fn prefetch(&self) {
        prefetch(self.data_ptr());
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` owns the buffer and is not used again.
        unsafe { dpdk_sys::oct_mbuf_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .field("segments", &self.segments())
            .finish_non_exhaustive()
    }
}

/// Frees all packets in one go and leaves the array empty.
#[inline]
pub fn free_all<const N: usize>(packets: &mut ArrayVec<Mbuf, N>) {
    let n = packets.len();
    if n == 0 {
        return;
    }
    // SAFETY: `Mbuf` is a transparent pointer and the first `n` are owned; setting the length first gives them up.
    unsafe {
        packets.set_len(0);
        dpdk_sys::rte_pktmbuf_free_bulk(packets.as_mut_ptr().cast(), n as u32);
    }
}
