/* What bindgen reads: the shim, the exported functions, and constants computed from the headers of this very build.
 *
 * The offsets are here because rte_mbuf is not the same everywhere: a build for one kind of DPU (RTE_IOVA_IN_MBUF=0)
 * has other fields than Debian's package, and releases move the rest. */
#include <stddef.h>

#include <rte_crypto.h>
#include <rte_cryptodev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include "crypto.h"
#include "crypto_op.h"
#include "shim.h"

enum oct_mbuf_layout {
	OCT_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	OCT_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	OCT_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
	OCT_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	OCT_MBUF_PORT = offsetof(struct rte_mbuf, port),
	OCT_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	OCT_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	OCT_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	OCT_MBUF_RSS_HASH = offsetof(struct rte_mbuf, hash.rss),
	OCT_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	OCT_MBUF_POOL = offsetof(struct rte_mbuf, pool),
	OCT_MBUF_SIZE = sizeof(struct rte_mbuf),
};

/* Bits of ol_flags; all of them are below bit 32. */
enum oct_mbuf_flag {
	OCT_MBUF_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH,
	OCT_MBUF_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK,
	OCT_MBUF_RX_IP_CKSUM_UNKNOWN = RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN,
	OCT_MBUF_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD,
	OCT_MBUF_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD,
	OCT_MBUF_RX_IP_CKSUM_NONE = RTE_MBUF_F_RX_IP_CKSUM_NONE,
};

enum oct_limit {
	OCT_MAX_LCORE = RTE_MAX_LCORE,
	OCT_MAX_ETHPORTS = RTE_MAX_ETHPORTS,
	OCT_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM,
	OCT_MBUF_PRIV_ALIGN = RTE_MBUF_PRIV_ALIGN,
	OCT_CRYPTO_MAX_DEVS = RTE_CRYPTO_MAX_DEVS,
	OCT_CRYPTO_OP_SIZE = OP_SIZE,
	OCT_CRYPTO_POOL_PRIVATE = sizeof(struct rte_crypto_op_pool_private),
};

/* What a device says it can do; all of them are below bit 32. */
enum oct_crypto_feature {
	OCT_CRYPTO_FF_SYMMETRIC = RTE_CRYPTODEV_FF_SYMMETRIC_CRYPTO,
	OCT_CRYPTO_FF_HW_ACCELERATED = RTE_CRYPTODEV_FF_HW_ACCELERATED,
	OCT_CRYPTO_FF_OUT_OF_PLACE = RTE_CRYPTODEV_FF_OOP_LB_IN_LB_OUT,
};
