#include "tunneld/net/direct_proof.h"

#include "lib/alloc.h"
#include "lib/crypto.h"

static int make(struct td_conn *c, const uint8_t secret[TNL_DIRECT_SECRET], bool client, uint8_t out[TNL_DIRECT_PROOF])
{
	uint8_t exported[TNL_DIRECT_PROOF];
	int rc =
	    td_conn_tls(c) ? tnl_tls_export(td_conn_tls(c), TNL_DIRECT_LABEL, exported, sizeof(exported)) : TNL_ETLS;

	if (rc == 0)
		tnl_direct_proof(secret, exported, client, out);
	tnl_wipe(exported, sizeof(exported));
	return rc;
}

int td_direct_prove(struct td_conn *c, const uint8_t secret[TNL_DIRECT_SECRET], bool client)
{
	uint8_t proof[TNL_DIRECT_PROOF];
	int rc = make(c, secret, client, proof);

	if (rc == 0 && td_conn_write(c, proof, sizeof(proof)) != sizeof(proof))
		rc = TNL_ENOMEM; /* the first bytes on an empty connection */
	return rc;
}

int td_direct_check(struct td_direct_proof *p, struct td_conn *c, const uint8_t secret[TNL_DIRECT_SECRET], bool client)
{
	uint8_t want[TNL_DIRECT_PROOF];

	while (p->have < sizeof(p->got)) {
		ssize_t n = td_conn_read(c, p->got + p->have, sizeof(p->got) - p->have);

		if (n <= 0)
			return TNL_EAGAIN;
		p->have += (size_t)n;
	}
	int rc = make(c, secret, client, want);
	if (rc)
		return rc;
	return tnl_ct_eq(p->got, want, sizeof(want)) ? 0 : TNL_EAUTH;
}
