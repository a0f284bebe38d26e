/* Session pools are marked experimental in DPDK 22.11 although sessions cannot be had without. */
#define ALLOW_EXPERIMENTAL_API

#include "crypto.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_bus.h>
#include <rte_crypto.h>
#include <rte_cryptodev.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>

#include "crypto_op.h"

static void copy_string(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from != NULL ? from : "");
}

int oct_crypto_next(uint32_t from)
{
	uint32_t dev;

	for (dev = from; dev < RTE_CRYPTO_MAX_DEVS; dev++)
		if (rte_cryptodev_is_valid_dev((uint8_t)dev))
			return (int)dev;
	return -1;
}

int oct_crypto_info(uint8_t dev, struct oct_crypto_info *out)
{
	struct rte_cryptodev_info info;
	const struct rte_bus *bus;

	memset(out, 0, sizeof(*out));
	if (!rte_cryptodev_is_valid_dev(dev))
		return -ENODEV;
	memset(&info, 0, sizeof(info));
	rte_cryptodev_info_get(dev, &info);
	copy_string(out->name, sizeof(out->name), rte_cryptodev_name_get(dev));
	if (info.device != NULL) {
		copy_string(out->device, sizeof(out->device), rte_dev_name(info.device));
		bus = rte_dev_bus(info.device);
		copy_string(out->bus, sizeof(out->bus), bus != NULL ? rte_bus_name(bus) : NULL);
	}
	copy_string(out->driver, sizeof(out->driver), info.driver_name);
	out->feature_flags = info.feature_flags;
	out->max_queue_pairs = info.max_nb_queue_pairs;
	out->max_sessions = info.sym.max_nb_sessions;
	out->socket = rte_cryptodev_socket_id(dev);
	if (out->socket < 0)
		out->socket = -1;
	out->min_headroom = info.min_mbuf_headroom_req;
	out->min_tailroom = info.min_mbuf_tailroom_req;
	return 0;
}

/* ---- algorithms ---- */

/* What an algorithm is made of: an AEAD, or a cipher with an authentication. */
struct parts {
	enum rte_crypto_aead_algorithm aead; /* 0: none */
	enum rte_crypto_cipher_algorithm cipher;
	enum rte_crypto_auth_algorithm auth;
};

static bool parts_of(uint8_t algorithm, struct parts *parts)
{
	memset(parts, 0, sizeof(*parts));
	switch (algorithm) {
	case OCT_CRYPTO_AES_GCM:
		parts->aead = RTE_CRYPTO_AEAD_AES_GCM;
		return true;
	case OCT_CRYPTO_CHACHA20_POLY1305:
		parts->aead = RTE_CRYPTO_AEAD_CHACHA20_POLY1305;
		return true;
	case OCT_CRYPTO_AES_CBC_HMAC_SHA256:
		parts->cipher = RTE_CRYPTO_CIPHER_AES_CBC;
		parts->auth = RTE_CRYPTO_AUTH_SHA256_HMAC;
		return true;
	case OCT_CRYPTO_AES_CBC_HMAC_SHA384:
		parts->cipher = RTE_CRYPTO_CIPHER_AES_CBC;
		parts->auth = RTE_CRYPTO_AUTH_SHA384_HMAC;
		return true;
	case OCT_CRYPTO_AES_CBC_HMAC_SHA512:
		parts->cipher = RTE_CRYPTO_CIPHER_AES_CBC;
		parts->auth = RTE_CRYPTO_AUTH_SHA512_HMAC;
		return true;
	case OCT_CRYPTO_NULL:
		parts->cipher = RTE_CRYPTO_CIPHER_NULL;
		parts->auth = RTE_CRYPTO_AUTH_NULL;
		return true;
	default:
		return false;
	}
}

static const struct rte_cryptodev_symmetric_capability *aead_capability(uint8_t dev, enum rte_crypto_aead_algorithm algo)
{
	struct rte_cryptodev_sym_capability_idx idx = {.type = RTE_CRYPTO_SYM_XFORM_AEAD, .algo.aead = algo};

	return rte_cryptodev_sym_capability_get(dev, &idx);
}

static const struct rte_cryptodev_symmetric_capability *cipher_capability(uint8_t dev,
									  enum rte_crypto_cipher_algorithm algo)
{
	struct rte_cryptodev_sym_capability_idx idx = {.type = RTE_CRYPTO_SYM_XFORM_CIPHER, .algo.cipher = algo};

	return rte_cryptodev_sym_capability_get(dev, &idx);
}

static const struct rte_cryptodev_symmetric_capability *auth_capability(uint8_t dev, enum rte_crypto_auth_algorithm algo)
{
	struct rte_cryptodev_sym_capability_idx idx = {.type = RTE_CRYPTO_SYM_XFORM_AUTH, .algo.auth = algo};

	return rte_cryptodev_sym_capability_get(dev, &idx);
}

static bool can_chain(uint8_t dev)
{
	struct rte_cryptodev_info info;

	memset(&info, 0, sizeof(info));
	rte_cryptodev_info_get(dev, &info);
	return info.feature_flags & RTE_CRYPTODEV_FF_SYM_OPERATION_CHAINING;
}

static struct oct_crypto_range range(struct rte_crypto_param_range from)
{
	struct oct_crypto_range to = {.min = from.min, .max = from.max, .step = from.increment};

	return to;
}

int oct_crypto_capability(uint8_t dev, uint8_t algorithm, struct oct_crypto_capability *out)
{
	const struct rte_cryptodev_symmetric_capability *first, *auth;
	struct parts parts;

	memset(out, 0, sizeof(*out));
	if (!rte_cryptodev_is_valid_dev(dev))
		return -ENODEV;
	if (!parts_of(algorithm, &parts))
		return -ENOTSUP;
	if (parts.aead != 0) {
		first = aead_capability(dev, parts.aead);
		if (first == NULL)
			return -ENOTSUP;
		out->key = range(first->aead.key_size);
		out->iv = range(first->aead.iv_size);
		out->aad = range(first->aead.aad_size);
		out->digest = range(first->aead.digest_size);
		return 0;
	}
	first = cipher_capability(dev, parts.cipher);
	auth = auth_capability(dev, parts.auth);
	if (first == NULL || auth == NULL || !can_chain(dev))
		return -ENOTSUP;
	out->key = range(first->cipher.key_size);
	out->iv = range(first->cipher.iv_size);
	out->digest = range(auth->auth.digest_size);
	out->auth_key = range(auth->auth.key_size);
	return 0;
}

bool oct_crypto_capable(uint8_t dev, const struct oct_crypto_transform *transform)
{
	const struct rte_cryptodev_symmetric_capability *first, *auth;
	struct parts parts;

	if (!rte_cryptodev_is_valid_dev(dev) || !parts_of(transform->algorithm, &parts))
		return false;
	if (parts.aead != 0) {
		first = aead_capability(dev, parts.aead);
		return first != NULL && rte_cryptodev_sym_capability_check_aead(first, transform->key_len,
										transform->digest_len, transform->aad_len,
										transform->iv_len) == 0;
	}
	first = cipher_capability(dev, parts.cipher);
	auth = auth_capability(dev, parts.auth);
	return first != NULL && auth != NULL && can_chain(dev) &&
	       rte_cryptodev_sym_capability_check_cipher(first, transform->key_len, transform->iv_len) == 0 &&
	       rte_cryptodev_sym_capability_check_auth(auth, transform->auth_key_len, transform->digest_len, 0) == 0;
}

/* ---- devices ---- */

int oct_crypto_configure(uint8_t dev, uint16_t queue_pairs, uint32_t descriptors, int socket)
{
	struct rte_cryptodev_config config;
	struct rte_cryptodev_qp_conf queue;
	uint16_t i;
	int ret;

	memset(&config, 0, sizeof(config));
	config.socket_id = socket;
	config.nb_queue_pairs = queue_pairs;
	ret = rte_cryptodev_configure(dev, &config);
	if (ret != 0)
		return ret;
	memset(&queue, 0, sizeof(queue));
	queue.nb_descriptors = descriptors;
	for (i = 0; i < queue_pairs; i++) {
		ret = rte_cryptodev_queue_pair_setup(dev, i, &queue, socket);
		if (ret != 0)
			return ret;
	}
	return 0;
}

int oct_crypto_stats(uint8_t dev, struct oct_crypto_stats *out)
{
	struct rte_cryptodev_stats stats;
	int ret;

	memset(&stats, 0, sizeof(stats));
	ret = rte_cryptodev_stats_get(dev, &stats);
	if (ret != 0)
		return ret;
	out->enqueued = stats.enqueued_count;
	out->dequeued = stats.dequeued_count;
	out->enqueue_errors = stats.enqueue_err_count;
	out->dequeue_errors = stats.dequeue_err_count;
	return 0;
}

/* ---- sessions ---- */

struct rte_mempool *oct_crypto_session_pool(uint8_t dev, const char *name, uint32_t n, int socket)
{
	/* No cache: sessions come and go on the control plane's threads. */
	return rte_cryptodev_sym_session_pool_create(name, n, rte_cryptodev_sym_get_private_session_size(dev), 0, 0,
						     socket);
}

static void *create_aead(uint8_t dev, const struct oct_crypto_transform *transform, const struct parts *parts,
			 struct rte_mempool *pool)
{
	struct rte_crypto_sym_xform aead;

	memset(&aead, 0, sizeof(aead));
	aead.type = RTE_CRYPTO_SYM_XFORM_AEAD;
	aead.aead.op = transform->decrypt ? RTE_CRYPTO_AEAD_OP_DECRYPT : RTE_CRYPTO_AEAD_OP_ENCRYPT;
	aead.aead.algo = parts->aead;
	aead.aead.key.data = transform->key;
	aead.aead.key.length = transform->key_len;
	aead.aead.iv.offset = OP_IV_OFFSET;
	aead.aead.iv.length = transform->iv_len;
	aead.aead.digest_length = transform->digest_len;
	aead.aead.aad_length = transform->aad_len;
	return rte_cryptodev_sym_session_create(dev, &aead, pool);
}

static void *create_chain(uint8_t dev, const struct oct_crypto_transform *transform, const struct parts *parts,
			  struct rte_mempool *pool)
{
	struct rte_crypto_sym_xform cipher, auth, *first;

	memset(&cipher, 0, sizeof(cipher));
	memset(&auth, 0, sizeof(auth));
	cipher.type = RTE_CRYPTO_SYM_XFORM_CIPHER;
	cipher.cipher.op = transform->decrypt ? RTE_CRYPTO_CIPHER_OP_DECRYPT : RTE_CRYPTO_CIPHER_OP_ENCRYPT;
	cipher.cipher.algo = parts->cipher;
	cipher.cipher.key.data = transform->key;
	cipher.cipher.key.length = transform->key_len;
	cipher.cipher.iv.offset = OP_IV_OFFSET;
	cipher.cipher.iv.length = transform->iv_len;
	auth.type = RTE_CRYPTO_SYM_XFORM_AUTH;
	auth.auth.op = transform->decrypt ? RTE_CRYPTO_AUTH_OP_VERIFY : RTE_CRYPTO_AUTH_OP_GENERATE;
	auth.auth.algo = parts->auth;
	auth.auth.key.data = transform->auth_key;
	auth.auth.key.length = transform->auth_key_len;
	auth.auth.digest_length = transform->digest_len;
	/* Encrypt, then authenticate what was encrypted; the other way round, the other way round. */
	if (transform->decrypt) {
		auth.next = &cipher;
		first = &auth;
	} else {
		cipher.next = &auth;
		first = &cipher;
	}
	return rte_cryptodev_sym_session_create(dev, first, pool);
}

void *oct_crypto_session_create(uint8_t dev, const struct oct_crypto_transform *transform, struct rte_mempool *pool)
{
	struct parts parts;

	if (!parts_of(transform->algorithm, &parts) || transform->iv_len > OCT_CRYPTO_IV_MAX ||
	    transform->aad_len > OCT_CRYPTO_AAD_MAX) {
		rte_errno = EINVAL;
		return NULL;
	}
	return parts.aead != 0 ? create_aead(dev, transform, &parts, pool) : create_chain(dev, transform, &parts, pool);
}

/* ---- operations ---- */

void oct_crypto_op_pool_init(struct rte_mempool *pool)
{
	struct rte_crypto_op_pool_private *private = rte_mempool_get_priv(pool);

	private->type = RTE_CRYPTO_OP_TYPE_SYMMETRIC;
	private->priv_size = sizeof(struct op_private);
}

void oct_crypto_op_init(struct rte_mempool *pool, void *unused, void *element, unsigned int index)
{
	struct rte_crypto_op *op = element;

	(void)unused;
	(void)index;
	memset(op, 0, OP_SIZE);
	__rte_crypto_op_reset(op, RTE_CRYPTO_OP_TYPE_SYMMETRIC);
	op->sess_type = RTE_CRYPTO_OP_WITH_SESSION;
	op->private_data_offset = OP_PRIVATE_OFFSET;
	op->phys_addr = rte_mem_virt2iova(element);
	op->mempool = pool;
}

bool oct_crypto_ops_take(struct rte_mempool *pool, struct rte_crypto_op **ops, unsigned int n)
{
	return rte_mempool_get_bulk(pool, (void **)ops, n) == 0;
}

void oct_crypto_ops_give(struct rte_mempool *pool, struct rte_crypto_op **ops, unsigned int n)
{
	rte_mempool_put_bulk(pool, (void *const *)ops, n);
}

void oct_crypto_op_abandon(struct rte_crypto_op *op, struct rte_mbuf **src, struct rte_mbuf **dst)
{
	*src = op->sym->m_src;
	*dst = op->sym->m_dst;
	op->sym->m_src = NULL;
	op->sym->m_dst = NULL;
}

static inline void fill(struct rte_crypto_op *op, const struct oct_crypto_job *job)
{
	struct op_private *private = op_private(op);
	struct rte_crypto_sym_op *sym = op->sym;
	struct rte_mbuf *to = job->dst != NULL && !job->verify ? job->dst : job->src;
	uint8_t *digest = rte_pktmbuf_mtod_offset(to, uint8_t *, job->digest_offset);
	rte_iova_t digest_iova = rte_pktmbuf_iova_offset(to, job->digest_offset);

	op->status = RTE_CRYPTO_OP_STATUS_NOT_PROCESSED;
	sym->m_src = job->src;
	sym->m_dst = job->dst;
	sym->session = job->session;
	private->user = job->user;
	memcpy(private->iv, job->iv, sizeof(private->iv));
	if (job->combined) {
		memcpy(private->aad, job->aad, sizeof(private->aad));
		sym->aead.data.offset = job->cipher_offset;
		sym->aead.data.length = job->cipher_len;
		sym->aead.digest.data = digest;
		sym->aead.digest.phys_addr = digest_iova;
		sym->aead.aad.data = private->aad;
		sym->aead.aad.phys_addr = rte_crypto_op_ctophys_offset(op, OP_AAD_OFFSET);
	} else {
		sym->cipher.data.offset = job->cipher_offset;
		sym->cipher.data.length = job->cipher_len;
		sym->auth.data.offset = job->auth_offset;
		sym->auth.data.length = job->auth_len;
		sym->auth.digest.data = digest;
		sym->auth.digest.phys_addr = digest_iova;
	}
}

static uint32_t status_of(uint8_t status)
{
	switch (status) {
	case RTE_CRYPTO_OP_STATUS_SUCCESS:
		return OCT_CRYPTO_SUCCESS;
	case RTE_CRYPTO_OP_STATUS_NOT_PROCESSED:
		return OCT_CRYPTO_NOT_PROCESSED;
	case RTE_CRYPTO_OP_STATUS_AUTH_FAILED:
		return OCT_CRYPTO_AUTH_FAILED;
	case RTE_CRYPTO_OP_STATUS_INVALID_SESSION:
		return OCT_CRYPTO_INVALID_SESSION;
	case RTE_CRYPTO_OP_STATUS_INVALID_ARGS:
		return OCT_CRYPTO_INVALID_ARGS;
	default:
		return OCT_CRYPTO_ERROR;
	}
}

uint16_t oct_crypto_enqueue(uint8_t dev, uint16_t queue, struct rte_crypto_op **ops, const struct oct_crypto_job *jobs,
			    uint16_t n, uint32_t *refused)
{
	uint16_t i, taken;

	if (unlikely(rte_lcore_id() == LCORE_ID_ANY)) {
		*refused = OCT_CRYPTO_NOT_PROCESSED;
		return 0;
	}
	for (i = 0; i < n; i++)
		fill(ops[i], &jobs[i]);
	taken = rte_cryptodev_enqueue_burst(dev, queue, ops, n);
	if (unlikely(taken < n)) {
		*refused = status_of(ops[taken]->status);
		for (i = taken; i < n; i++) {
			/* What is free has no buffers. */
			ops[i]->sym->m_src = NULL;
			ops[i]->sym->m_dst = NULL;
		}
	}
	return taken;
}

uint16_t oct_crypto_dequeue(uint8_t dev, uint16_t queue, struct rte_crypto_op **ops, struct oct_crypto_done *done,
			    uint16_t n)
{
	uint16_t i;

	n = rte_cryptodev_dequeue_burst(dev, queue, ops, n);
	for (i = 0; i < n; i++) {
		struct rte_crypto_sym_op *sym = ops[i]->sym;

		done[i].src = sym->m_src;
		done[i].dst = sym->m_dst;
		done[i].user = op_private(ops[i])->user;
		done[i].status = status_of(ops[i]->status);
		sym->m_src = NULL;
		sym->m_dst = NULL;
	}
	return n;
}
