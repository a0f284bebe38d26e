/* The C shim: what is inline in DPDK, and what takes structures that change between releases.
 *
 * Functions returning int return 0 or a negative errno value. */
#ifndef OCTOPLANE_SHIM_H
#define OCTOPLANE_SHIM_H

#include <stdbool.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* The lcore id of a thread that is not an EAL thread. */
#define OCT_LCORE_NONE UINT32_MAX

/* ---- threads, errors ---- */
uint32_t oct_lcore_id(void);
int oct_errno(void);
void oct_pause(void);

/* ---- packet buffers ---- */
struct rte_mbuf *oct_mbuf_alloc(struct rte_mempool *pool);
/* All `n` or none: whether there were that many. */
bool oct_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **out, unsigned int n);
void oct_mbuf_free(struct rte_mbuf *mbuf);
uint32_t oct_mempool_size(const struct rte_mempool *pool);

/* ---- bursts ---- */
uint16_t oct_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **out, uint16_t n);
/* Sends nothing from a thread without an lcore id: some drivers compute the address they write to from it. */
uint16_t oct_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);

/* ---- ports ---- */
enum oct_port_flag {
	OCT_PORT_RX_CKSUM = 1,
	OCT_PORT_RSS = 2,
	OCT_PORT_FAST_FREE = 4,
};

struct oct_port_info {
	char name[64];
	char device[64];
	char driver[64];
	char bus[64];
	uint64_t rx_offload_capa;
	uint64_t tx_offload_capa;
	uint64_t rss_capa;
	uint32_t max_rx_pktlen;
	int32_t socket; /* -1: none */
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint16_t mtu;
	uint8_t mac[6];
	uint32_t capable; /* enum oct_port_flag */
};

struct oct_port_stats {
	uint64_t ipackets;
	uint64_t opackets;
	uint64_t ibytes;
	uint64_t obytes;
	uint64_t imissed;
	uint64_t ierrors;
	uint64_t oerrors;
	uint64_t rx_nombuf;
};

struct oct_port_link {
	uint32_t speed; /* Mbit/s; UINT32_MAX: unknown */
	bool up;
	bool full_duplex;
};

int oct_port_info(uint16_t port, struct oct_port_info *out);
/* `flags` (enum oct_port_flag) is what is wanted; `granted` is what the port can do of it. `mtu` 0: the default. */
int oct_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint16_t mtu, uint32_t flags,
		       uint32_t *granted);
int oct_port_rxq_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket, struct rte_mempool *pool);
int oct_port_txq_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket);
int oct_port_stats(uint16_t port, struct oct_port_stats *out);
int oct_port_link(uint16_t port, struct oct_port_link *out);
int oct_port_mac_get(uint16_t port, uint8_t mac[6]);
int oct_port_mac_set(uint16_t port, const uint8_t mac[6]);

#endif
