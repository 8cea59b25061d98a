/* Tokens: what a new link shows to prove that it was granted.  Of each only a hash is kept, of it
 * and the key that it was granted to: without that key it is void. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/num.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

static void hash_token(const uint8_t mark[GW_MARK], const char *token, uint8_t hash[32])
{
	tnl_hmac_sha256(mark, GW_MARK, token, strlen(token), hash);
}

static void drop_token(struct gw_tokens *t, unsigned i)
{
	memmove(&t->v[i], &t->v[i + 1], (t->n - i - 1) * sizeof(t->v[0]));
	t->n--;
}

/* The oldest of the main link gives way when there are too many.  Of each further link there is one: an end that has
 * shown a token asks for the next before we have read the first, and may so have one for each on its way. */
static struct gw_token *add_token(struct gw_tokens *t, unsigned link)
{
	static_assert(GW_LINKS - 1 >= GW_TOKENS, "room for either");
	if (!link && t->n == GW_TOKENS)
		drop_token(t, 0);
	for (unsigned i = t->n; link && i-- > 0;)
		if (t->v[i].link == link)
			drop_token(t, i);
	struct gw_token *k = &t->v[t->n++];
	*k = (struct gw_token){.link = link};
	return k;
}

void gw_token_new_link(struct td_gateway *g, struct gw_tokens *t, const uint8_t mark[GW_MARK], const char *client_id,
		       unsigned link, char out[GW_TOKEN_STR + 1])
{
	uint8_t raw[32];
	tnl_random(raw, sizeof(raw));
	tnl_b64(raw, sizeof(raw), out);
	tnl_wipe(raw, sizeof(raw));
	struct gw_token *k = add_token(t, link);
	hash_token(mark, out, k->hash);
	k->expires_ms = g->l->wall_ms + g->cfg->gw.token_ttl_ns / TD_MS;
	if (client_id) {
		k->bound = true;
		snprintf(k->client_id, sizeof(k->client_id), "%s", client_id);
	}
	gw_count(g, GW_C_TOKENS_ISSUED);
}

void gw_token_new(struct td_gateway *g, struct gw_tokens *t, const uint8_t mark[GW_MARK], const char *client_id,
		  char out[GW_TOKEN_STR + 1])
{
	gw_token_new_link(g, t, mark, client_id, 0, out);
}

void gw_tokens_bind(struct gw_tokens *t, const char *client_id)
{
	for (unsigned i = 0; i < t->n; i++) {
		t->v[i].bound = true;
		snprintf(t->v[i].client_id, sizeof(t->v[i].client_id), "%s", client_id);
	}
}

/* Which of them it is, t->n: none; *key: which of the owner's keys it was granted to. */
static unsigned find_token(const struct gw_tokens *t, const struct gw_marks *owner, const char *token, unsigned *key)
{
	uint8_t hash[32];
	unsigned found = t->n;
	for (unsigned j = 0; j < owner->n; j++) {
		hash_token(owner->v[j], token, hash);
		for (unsigned i = 0; i < t->n; i++)
			if (tnl_ct_eq(hash, t->v[i].hash, sizeof(hash))) {
				found = i;
				*key = j;
			}
	}
	return found;
}

int gw_token_use(struct td_gateway *g, struct gw_tokens *t, const struct gw_marks *owner, const char *token,
		 const char *client_id, uint8_t mark[GW_MARK], const char **field)
{
	unsigned key = 0, found = find_token(t, owner, token, &key);
	if (found == t->n) {
		*field = "token";
		return TNL_EAUTH;
	}
	memcpy(mark, owner->v[key], GW_MARK);
	struct gw_token k = t->v[found];
	drop_token(t, found); /* whatever follows: it can never be used again */
	if (k.expires_ms <= g->l->wall_ms) {
		*field = "token expiry";
		return TNL_EEXPIRED;
	}
	if (k.bound && strcmp(k.client_id, client_id) != 0) {
		*field = "ClientId";
		return TNL_EAUTH;
	}
	t->used = k.link;
	gw_count(g, GW_C_TOKENS_USED);
	return 0;
}

/* --- of a shared store --------------------------------------------------------- */
unsigned gw_token_hashes(const struct gw_marks *owner, const char *token, uint8_t hashes[TD_KEYS_MAX][32])
{
	for (unsigned i = 0; i < owner->n; i++)
		hash_token(owner->v[i], token, hashes[i]);
	return owner->n;
}

void gw_token_share(struct td_gateway *g, const struct gw_tokens *t, enum gw_role role, const char *id,
		    td_store_done *fn, void *ctx)
{
	const struct gw_token *k = &t->v[t->n - 1];
	struct tnl_buf b;
	uint64_t now = g->l->wall_ms;
	tnl_buf_init(&b, 2048);
	tnl_buf_printf(&b, "%u %u %u %s\n%s", (unsigned)role, k->link, k->bound, id, k->client_id);
	const char *text = tnl_buf_str(&b);
	if (text)
		td_store_token_put(g->store, k->hash, text, k->expires_ms - TNL_MIN(now, k->expires_ms), fn, ctx);
	else if (fn)
		fn(ctx, TNL_ENOMEM);
	tnl_buf_fini(&b);
}

bool gw_grant_read(struct gw_grant *out, const char *value)
{
	unsigned role, link, bound;
	int at = 0;
	*out = (struct gw_grant){.text = tnl_strdup(value)};
	char *end = out->text ? strchr(out->text, '\n') : NULL;
	if (!end || sscanf(value, "%u %u %u %n", &role, &link, &bound, &at) != 3 || !at || role > GW_CONTROL ||
	    link >= GW_LINKS || out->text + at > end || strlen(end + 1) >= TD_STORE_CLIENT_ID) {
		gw_grant_fini(out);
		return false;
	}
	*end = 0;
	out->role = (enum gw_role)role;
	out->link = link;
	out->bound = bound != 0;
	out->id = out->text + at;
	out->client_id = end + 1;
	return true;
}

void gw_grant_fini(struct gw_grant *gr)
{
	tnl_free(gr->text);
	gr->text = NULL;
}

void gw_token_missing(struct gw_tokens *t, const uint8_t hash[32])
{
	unsigned n = 0;
	for (unsigned i = 0; i < t->n; i++)
		if (!tnl_ct_eq(hash, t->v[i].hash, 32))
			t->v[n++] = t->v[i];
	t->n = n;
}

/* It was granted by another node, or before a restart. */
void gw_token_found(struct td_gateway *g, struct gw_tokens *t, const uint8_t hash[32], const struct gw_grant *gr)
{
	gw_token_missing(t, hash);
	struct gw_token *k = add_token(t, gr->link);
	k->expires_ms = g->l->wall_ms + g->cfg->gw.token_ttl_ns / TD_MS;
	k->bound = gr->bound;
	memcpy(k->hash, hash, sizeof(k->hash));
	snprintf(k->client_id, sizeof(k->client_id), "%s", gr->client_id);
}

bool gw_tokens_drop_expired(struct gw_tokens *t, uint64_t wall_ms)
{
	unsigned had = t->n, n = 0;
	for (unsigned i = 0; i < had; i++)
		if (t->v[i].expires_ms > wall_ms)
			t->v[n++] = t->v[i];
	t->n = n;
	return n < had;
}

uint64_t gw_tokens_deadline(const struct gw_tokens *t, const struct td_loop *l)
{
	uint64_t at = UINT64_MAX;
	for (unsigned i = 0; i < t->n; i++) {
		uint64_t expires = t->v[i].expires_ms;
		at = TNL_MIN(at, expires > l->wall_ms ? l->now + (expires - l->wall_ms) * TD_MS : l->now);
	}
	return at;
}
