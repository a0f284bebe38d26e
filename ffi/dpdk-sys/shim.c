#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_pause.h>

/* Rust reads these fields by offset and assumes their width. */
#define FIELD_IS(field, type) \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == sizeof(type), #field " is not " #type)
FIELD_IS(buf_addr, void *);
FIELD_IS(data_off, uint16_t);
FIELD_IS(refcnt, uint16_t);
FIELD_IS(nb_segs, uint16_t);
FIELD_IS(port, uint16_t);
FIELD_IS(ol_flags, uint64_t);
FIELD_IS(pkt_len, uint32_t);
FIELD_IS(data_len, uint16_t);
FIELD_IS(hash.rss, uint32_t);
FIELD_IS(buf_len, uint16_t);
FIELD_IS(pool, void *);
_Static_assert(OCT_LCORE_NONE == LCORE_ID_ANY, "LCORE_ID_ANY has changed");

uint32_t oct_lcore_id(void)
{
	return rte_lcore_id();
}

int oct_errno(void)
{
	return rte_errno;
}

void oct_pause(void)
{
	rte_pause();
}

struct rte_mbuf *oct_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

bool oct_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **out, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, out, n) == 0;
}

void oct_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

uint32_t oct_mempool_size(const struct rte_mempool *pool)
{
	return pool->size;
}

uint16_t oct_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **out, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, out, n);
}

uint16_t oct_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	if (unlikely(rte_lcore_id() == LCORE_ID_ANY))
		return 0;
	return rte_eth_tx_burst(port, queue, pkts, n);
}

static const uint64_t WANTED_RSS = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP;

/* Which of our features a device can do. */
static uint32_t capable(const struct rte_eth_dev_info *info)
{
	uint32_t flags = 0;

	if (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM)
		flags |= OCT_PORT_RX_CKSUM;
	if (info->flow_type_rss_offloads & WANTED_RSS)
		flags |= OCT_PORT_RSS;
	if (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE)
		flags |= OCT_PORT_FAST_FREE;
	return flags;
}

static void copy_string(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from != NULL ? from : "");
}

int oct_port_info(uint16_t port, struct oct_port_info *out)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	const struct rte_bus *bus;
	int ret;

	memset(out, 0, sizeof(*out));
	ret = rte_eth_dev_info_get(port, &info);
	if (ret != 0)
		return ret;
	/* RTE_ETH_NAME_MAX_LEN is 64 in every release there is, and the call has no length argument. */
	_Static_assert(sizeof(out->name) >= RTE_ETH_NAME_MAX_LEN, "port names have grown");
	ret = rte_eth_dev_get_name_by_port(port, out->name);
	if (ret != 0)
		return ret;
	if (info.device != NULL) {
		copy_string(out->device, sizeof(out->device), rte_dev_name(info.device));
		bus = rte_dev_bus(info.device);
		copy_string(out->bus, sizeof(out->bus), bus != NULL ? rte_bus_name(bus) : NULL);
	}
	copy_string(out->driver, sizeof(out->driver), info.driver_name);
	if (rte_eth_macaddr_get(port, &mac) == 0)
		memcpy(out->mac, mac.addr_bytes, sizeof(out->mac));
	if (rte_eth_dev_get_mtu(port, &out->mtu) != 0)
		out->mtu = 0;
	out->rx_offload_capa = info.rx_offload_capa;
	out->tx_offload_capa = info.tx_offload_capa;
	out->rss_capa = info.flow_type_rss_offloads;
	out->max_rx_pktlen = info.max_rx_pktlen;
	out->socket = rte_eth_dev_socket_id(port);
	if (out->socket < 0)
		out->socket = -1;
	out->max_rx_queues = info.max_rx_queues;
	out->max_tx_queues = info.max_tx_queues;
	out->min_mtu = info.min_mtu;
	out->max_mtu = info.max_mtu;
	out->capable = capable(&info);
	return 0;
}

int oct_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint16_t mtu, uint32_t flags,
		       uint32_t *granted)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	int ret;

	ret = rte_eth_dev_info_get(port, &info);
	if (ret != 0)
		return ret;
	flags &= capable(&info);
	/* One queue leaves nothing to spread. */
	if (rx_queues < 2)
		flags &= ~(uint32_t)OCT_PORT_RSS;

	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = mtu;
	if (flags & OCT_PORT_RX_CKSUM)
		conf.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_CHECKSUM;
	if (flags & OCT_PORT_RSS) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH;
		conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & WANTED_RSS;
	}
	/* Neither RX_OFFLOAD_SCATTER nor TX_OFFLOAD_MULTI_SEGS: one buffer is one packet, and drivers have a faster
	 * path for that. */
	if (flags & OCT_PORT_FAST_FREE)
		conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	*granted = flags;
	return rte_eth_dev_configure(port, rx_queues, tx_queues, &conf);
}

int oct_port_rxq_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket, struct rte_mempool *pool)
{
	return rte_eth_rx_queue_setup(port, queue, descriptors, socket < 0 ? (unsigned int)SOCKET_ID_ANY : (unsigned int)socket,
				      NULL, pool);
}

int oct_port_txq_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket)
{
	return rte_eth_tx_queue_setup(port, queue, descriptors, socket < 0 ? (unsigned int)SOCKET_ID_ANY : (unsigned int)socket,
				      NULL);
}

int oct_port_stats(uint16_t port, struct oct_port_stats *out)
{
	struct rte_eth_stats stats;
	int ret = rte_eth_stats_get(port, &stats);

	if (ret != 0)
		return ret;
	out->ipackets = stats.ipackets;
	out->opackets = stats.opackets;
	out->ibytes = stats.ibytes;
	out->obytes = stats.obytes;
	out->imissed = stats.imissed;
	out->ierrors = stats.ierrors;
	out->oerrors = stats.oerrors;
	out->rx_nombuf = stats.rx_nombuf;
	return 0;
}

int oct_port_link(uint16_t port, struct oct_port_link *out)
{
	struct rte_eth_link link;
	int ret;

	memset(&link, 0, sizeof(link));
	ret = rte_eth_link_get_nowait(port, &link);
	if (ret != 0)
		return ret;
	out->speed = link.link_speed;
	out->up = link.link_status == RTE_ETH_LINK_UP;
	out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return 0;
}

int oct_port_mac_get(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr addr;
	int ret = rte_eth_macaddr_get(port, &addr);

	if (ret == 0)
		memcpy(mac, addr.addr_bytes, sizeof(addr.addr_bytes));
	return ret;
}

int oct_port_mac_set(uint16_t port, const uint8_t mac[6])
{
	struct rte_ether_addr addr;

	memcpy(addr.addr_bytes, mac, sizeof(addr.addr_bytes));
	return rte_eth_dev_default_mac_addr_set(port, &addr);
}
