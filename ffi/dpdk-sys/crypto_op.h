/* The layout of an operation: DPDK's structures, then what we keep with them. */
#ifndef OCTOPLANE_CRYPTO_OP_H
#define OCTOPLANE_CRYPTO_OP_H

#include <stddef.h>
#include <stdint.h>

#include <rte_crypto.h>

#include "crypto.h"

struct op_private {
	uint8_t iv[OCT_CRYPTO_IV_MAX];
	uint8_t aad[OCT_CRYPTO_AAD_MAX];
	uint64_t user;
};

#define OP_PRIVATE_OFFSET (sizeof(struct rte_crypto_op) + sizeof(struct rte_crypto_sym_op))
#define OP_IV_OFFSET (OP_PRIVATE_OFFSET + offsetof(struct op_private, iv))
#define OP_AAD_OFFSET (OP_PRIVATE_OFFSET + offsetof(struct op_private, aad))
#define OP_SIZE (OP_PRIVATE_OFFSET + sizeof(struct op_private))

static inline struct op_private *op_private(struct rte_crypto_op *op)
{
	return (struct op_private *)((uint8_t *)op + OP_PRIVATE_OFFSET);
}

#endif
