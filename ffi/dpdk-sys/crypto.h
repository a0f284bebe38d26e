/* The C shim around cryptodev: operations are inline in DPDK, and transforms and sessions are structures that change
 * between releases.
 *
 * Functions returning int return 0 or a negative errno value. Offsets count from the first byte of a buffer's data. */
#ifndef OCTOPLANE_CRYPTO_H
#define OCTOPLANE_CRYPTO_H

#include <stdbool.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;
struct rte_crypto_op;

/* Most operations in one call. */
#define OCT_CRYPTO_BURST 64u
/* Bytes there are for a nonce or IV, and for additional authenticated data. */
#define OCT_CRYPTO_IV_MAX 16u
#define OCT_CRYPTO_AAD_MAX 16u

enum oct_crypto_algorithm {
	OCT_CRYPTO_AES_GCM = 1,
	OCT_CRYPTO_CHACHA20_POLY1305 = 2,
	OCT_CRYPTO_AES_CBC_HMAC_SHA256 = 3,
	OCT_CRYPTO_AES_CBC_HMAC_SHA384 = 4,
	OCT_CRYPTO_AES_CBC_HMAC_SHA512 = 5,
	OCT_CRYPTO_NULL = 6, /* neither encrypts nor authenticates */
};

/* What a session does. For combined algorithms there is no `auth_key`, for the others no `aad_len`. */
struct oct_crypto_transform {
	const uint8_t *key;
	const uint8_t *auth_key;
	uint16_t key_len;
	uint16_t auth_key_len;
	uint16_t iv_len;
	uint16_t digest_len;
	uint16_t aad_len;
	uint8_t algorithm; /* enum oct_crypto_algorithm */
	uint8_t decrypt;
};

struct oct_crypto_info {
	char name[64];
	char device[64];
	char driver[64];
	char bus[64];
	uint64_t feature_flags; /* RTE_CRYPTODEV_FF_* */
	uint32_t max_queue_pairs;
	uint32_t max_sessions; /* 0: no limit */
	int32_t socket;	       /* -1: none */
	uint16_t min_headroom;
	uint16_t min_tailroom;
};

struct oct_crypto_range {
	uint16_t min;
	uint16_t max;
	uint16_t step;
};

struct oct_crypto_capability {
	struct oct_crypto_range key;
	struct oct_crypto_range iv;
	struct oct_crypto_range aad;	/* combined algorithms only */
	struct oct_crypto_range digest;
	struct oct_crypto_range auth_key; /* the others only */
};

struct oct_crypto_stats {
	uint64_t enqueued;
	uint64_t dequeued;
	uint64_t enqueue_errors;
	uint64_t dequeue_errors;
};

/* One packet to work on. */
struct oct_crypto_job {
	struct rte_mbuf *src;
	struct rte_mbuf *dst; /* where the result goes; NULL: in place */
	void *session;
	uint64_t user; /* comes back */
	uint16_t cipher_offset;
	uint16_t cipher_len;
	uint16_t auth_offset; /* both unused by combined algorithms */
	uint16_t auth_len;
	uint16_t digest_offset; /* in `src` if it is verified, else where the result goes */
	bool combined;
	bool verify;
	uint8_t iv[OCT_CRYPTO_IV_MAX];
	uint8_t aad[OCT_CRYPTO_AAD_MAX];
};

enum oct_crypto_status {
	OCT_CRYPTO_SUCCESS = 0,
	OCT_CRYPTO_NOT_PROCESSED = 1,
	OCT_CRYPTO_AUTH_FAILED = 2,
	OCT_CRYPTO_INVALID_SESSION = 3,
	OCT_CRYPTO_INVALID_ARGS = 4,
	OCT_CRYPTO_ERROR = 5,
};

struct oct_crypto_done {
	struct rte_mbuf *src;
	struct rte_mbuf *dst;
	uint64_t user;
	uint32_t status; /* enum oct_crypto_status */
};

/* ---- devices ---- */
/* The first device with this number or a higher one; -1: none. */
int oct_crypto_next(uint32_t from);
int oct_crypto_info(uint8_t dev, struct oct_crypto_info *out);
/* -ENOTSUP: the device does not have the algorithm. */
int oct_crypto_capability(uint8_t dev, uint8_t algorithm, struct oct_crypto_capability *out);
/* Whether algorithm and sizes are among the capabilities. Keys are not looked at. */
bool oct_crypto_capable(uint8_t dev, const struct oct_crypto_transform *transform);
int oct_crypto_configure(uint8_t dev, uint16_t queue_pairs, uint32_t descriptors, int socket);
int oct_crypto_stats(uint8_t dev, struct oct_crypto_stats *out);

/* ---- sessions ---- */
struct rte_mempool *oct_crypto_session_pool(uint8_t dev, const char *name, uint32_t n, int socket);
/* NULL: see oct_errno. The keys are not needed afterwards. */
void *oct_crypto_session_create(uint8_t dev, const struct oct_crypto_transform *transform, struct rte_mempool *pool);

/* ---- operations ---- */
/* Writes the private area, OCT_CRYPTO_POOL_PRIVATE bytes, of a new pool. */
void oct_crypto_op_pool_init(struct rte_mempool *pool);
/* For rte_mempool_obj_iter over a pool of elements of OCT_CRYPTO_OP_SIZE bytes. */
void oct_crypto_op_init(struct rte_mempool *pool, void *unused, void *op, unsigned int index);
/* All `n` or none: whether there were that many. */
bool oct_crypto_ops_take(struct rte_mempool *pool, struct rte_crypto_op **ops, unsigned int n);
void oct_crypto_ops_give(struct rte_mempool *pool, struct rte_crypto_op **ops, unsigned int n);
/* The buffers of an operation that the device never returned; NULL if it is not with a device. Forgets them. */
void oct_crypto_op_abandon(struct rte_crypto_op *op, struct rte_mbuf **src, struct rte_mbuf **dst);

/* Gives the device operation `ops[i]`, free until now, for `jobs[i]`, at most OCT_CRYPTO_BURST. Returns how many it took;
 * if not all, `refused` is the status it gave the first other one (NOT_PROCESSED: no room). Takes none from a thread
 * without an lcore id: some drivers compute the address they write to from it. */
uint16_t oct_crypto_enqueue(uint8_t dev, uint16_t queue, struct rte_crypto_op **ops, const struct oct_crypto_job *jobs,
			    uint16_t n, uint32_t *refused);
/* Takes at most `n` (at most OCT_CRYPTO_BURST) finished operations, which are free again. */
uint16_t oct_crypto_dequeue(uint8_t dev, uint16_t queue, struct rte_crypto_op **ops, struct oct_crypto_done *done,
			    uint16_t n);

#endif
