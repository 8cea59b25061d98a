/* GenerateDataKey and Decrypt from a key file, for those without AWS KMS.
 * A blob is  version 1 | salt 32 | AES-256-GCM(data key) | tag 16 ; its key is
 * HMAC-SHA256(file key, label + salt), so that no nonce is ever used twice, and
 * the encryption context is authenticated with it. */
#include "tunneld/gateway/api_internal.h"
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/base/file.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_FILE_MAX 4096u
#define BLOB_VERSION 1
#define SALT 32u
#define DATA_KEY_MAX 1024u
#define BLOB_MAX (1 + SALT + DATA_KEY_MAX + 16)

struct gw_kms {
	uint8_t key[32];
	char arn[256];
};

/* --- the key file ------------------------------------------------------------ */
static char *read_private(const char *path, size_t *n, char *why, size_t cap)
{
	struct stat st;
	char *text = td_file_read(path, KEY_FILE_MAX, 0, n, &st);
	if (!text) {
		snprintf(why, cap, "kms_key_file %s: %s", path, td_file_trouble(errno));
	} else if (st.st_mode & 077) {
		snprintf(why, cap, "kms_key_file %s: others can read it; chmod 600 it", path);
		tnl_free_wiped(text, *n);
		text = NULL;
	}
	return text;
}

/* 32 raw bytes, 64 hexadecimal digits or base64 of 32 bytes. */
static int parse_key(const char *buf, size_t n, uint8_t key[32])
{
	if (n == 32) {
		memcpy(key, buf, 32);
		return 0;
	}
	while (n && strchr(" \t\r\n", buf[n - 1]))
		n--;
	if (n == 64 && tnl_unhex(buf, n, key) == 0)
		return 0;
	return tnl_unb64(buf, n, key, 32) == 32 ? 0 : TNL_ESYNTAX;
}

struct gw_kms *gw_kms_load(const char *path, const char *key_id, const char *region, char *why, size_t cap)
{
	size_t n = 0;
	struct gw_kms *k = tnl_calloc(1, sizeof(*k));
	char *text = k ? read_private(path, &n, why, cap) : NULL;
	bool good = text && parse_key(text, n, k->key) == 0;
	if (text && !good)
		snprintf(why, cap,
			 "kms_key_file %s: requires 32 bytes, 64 hexadecimal digits or their base64; make one with: "
			 "openssl rand -hex 32",
			 path);
	tnl_free_wiped(text, n);
	if (!good) {
		gw_kms_free(k);
		return NULL;
	}
	if (key_id && *key_id) {
		snprintf(k->arn, sizeof(k->arn), "%s", key_id);
		return k;
	}
	uint8_t id[32];
	char uuid[TNL_UUID_STR];
	tnl_hmac_sha256(k->key, sizeof(k->key), "tunneld key id", 14, id);
	tnl_uuid_v4(id, id);
	tnl_uuid_str(id, uuid);
	snprintf(k->arn, sizeof(k->arn), "arn:aws:kms:%s:000000000000:key/%s", region && *region ? region : "local",
		 uuid);
	return k;
}

void gw_kms_free(struct gw_kms *k)
{
	if (k)
		tnl_free_wiped(k, sizeof(*k));
}

const char *gw_kms_arn(const struct gw_kms *k)
{
	return k ? k->arn : "";
}

/* --- the encryption context ----------------------------------------------------- */
struct pair {
	const char *k, *v;
};

static int compare_pairs(const void *a, const void *b)
{
	return strcmp(((const struct pair *)a)->k, ((const struct pair *)b)->k);
}

/* Sorted, each string with its length in front: one form for one context. */
static int canonical_context(const struct tnl_json *ctx, struct tnl_buf *out)
{
	struct pair pairs[16];
	size_t n = 0;
	if (ctx && !tnl_json_is_obj(ctx))
		return TNL_ESYNTAX;
	tnl_json_each(m, ctx) {
		if (n == TNL_COUNT(pairs) || !tnl_json_str(m))
			return TNL_ESYNTAX;
		pairs[n++] = (struct pair){tnl_json_key(m), tnl_json_str(m)};
	}
	qsort(pairs, n, sizeof(pairs[0]), compare_pairs);
	for (size_t i = 0; i < n; i++) {
		uint8_t len[8];
		tnl_put_be32(len, (uint32_t)strlen(pairs[i].k));
		tnl_put_be32(len + 4, (uint32_t)strlen(pairs[i].v));
		tnl_buf_put(out, len, sizeof(len));
		tnl_buf_puts(out, pairs[i].k);
		tnl_buf_puts(out, pairs[i].v);
	}
	return out->failed ? TNL_ELIMIT : 0;
}

static struct tnl_gcm *blob_cipher(const struct gw_kms *k, const uint8_t salt[SALT])
{
	static const char label[] = "tunneld data key 1";
	uint8_t in[sizeof(label) - 1 + SALT], key[32];
	memcpy(in, label, sizeof(label) - 1);
	memcpy(in + sizeof(label) - 1, salt, SALT);
	tnl_hmac_sha256(k->key, sizeof(k->key), in, sizeof(in), key);
	struct tnl_gcm *g = tnl_gcm_new(key);
	tnl_wipe(key, sizeof(key));
	return g;
}

/* --- who may ----------------------------------------------------------------------- */
/* Session keys only: users for sessions of their own, instances for sessions to themselves. */
static bool context_allowed(struct gw_call *c, const struct tnl_json *ctx)
{
	const char *session = tnl_json_get_str(ctx, "aws:ssm:SessionId"),
		   *target = tnl_json_get_str(ctx, "aws:ssm:TargetId");
	const struct gw_session *s = session ? gw_session_get(c->g, session) : NULL;
	if (!s && c->fresh) /* the store vouches for it */
		return true;
	if (!s || !target || s->state == GW_S_ENDED || strcmp(s->target, target) != 0)
		return false;
	if (c->who->user)
		return strcmp(s->owner, c->who->user->name) == 0;
	return strcmp(target, c->who->instance->id) == 0;
}

/* Of a session that is at another node; then the call begins anew. */
static void on_session_found(void *ctx, int err, const struct td_store_found *f)
{
	struct gw_call *c = ctx;
	const char *target = tnl_json_get_str(tnl_json_get(c->in, "EncryptionContext"), "aws:ssm:TargetId");
	const struct gw_principal *p = gw_keys_by_mark(c->g, c->mark);
	bool is_active = err == 0 && f->where != TD_STORE_NONE && f->where != TD_STORE_ENDED;
	if (!c->r) {
		gw_call_free(c);
		return;
	}
	if (err != 0) {
		gw_call_unavailable(c);
		return;
	}
	c->who = p;
	c->fresh = p && is_active && target && strcmp(f->r->target, target) == 0 &&
		   strcmp(p->user ? f->r->owner : target, gw_keys_name(p)) == 0;
	c->asked = true;
	if (!p)
		gw_call_fail(c, 400, "UnrecognizedClientException",
			     "The security token included in the request is invalid.");
	else if (strcmp(c->op, "Decrypt") == 0)
		gw_op_decrypt(c);
	else
		gw_op_generate_data_key(c);
}

/* true: the call waits */
static bool ask_store(struct gw_call *c, const struct tnl_json *ctx)
{
	const char *session = tnl_json_get_str(ctx, "aws:ssm:SessionId");
	if (!c->g->shared || c->asked || !session || gw_session_get(c->g, session))
		return false;
	c->who = NULL;
	td_store_find(c->g->store, session, TD_STORE_LOOK, on_session_found, c);
	return true;
}

/* The key asked for: its ARN, or the id behind the last slash. */
static bool names_key(const struct gw_kms *k, const char *id)
{
	const char *tail = strrchr(k->arn, '/');
	return strcmp(id, k->arn) == 0 || (tail && strcmp(id, tail + 1) == 0);
}

/* 0, or answered. */
static int check_call(struct gw_call *c, bool key_required, struct tnl_buf *aad)
{
	const struct gw_kms *k = c->g->kms;
	bool ok;
	const char *id = gw_call_str(c, "KeyId", 2048, key_required && k, &ok);
	if (!ok)
		return -1;
	if (!k) {
		gw_call_fail(c, 400, "UnsupportedOperationException", "This gateway has no kms_key_file.");
		return -1;
	}
	if (id && !names_key(k, id)) {
		gw_call_fail(c, 400, "NotFoundException", "Key '%.200s' does not exist", id);
		return -1;
	}
	const struct tnl_json *ctx = tnl_json_get(c->in, "EncryptionContext");
	if (canonical_context(ctx, aad) != 0) {
		gw_call_fail(c, 400, "ValidationException", "EncryptionContext is not a small map of strings");
		return -1;
	}
	if (!c->asked && !gw_rate_listing(c, 1))
		return -1;
	if (ask_store(c, ctx))
		return -1;
	if (!context_allowed(c, ctx)) {
		gw_count(c->g, GW_C_AUTH_DENIED);
		gw_call_fail(c, 400, "AccessDeniedException", "Not authorized to perform: kms:%s on this resource",
			     c->op);
		return -1;
	}
	return 0;
}

static void write_b64(struct tnl_jw *w, const char *key, const uint8_t *p, size_t n)
{
	char text[TNL_B64_LEN(BLOB_MAX) + 1];
	tnl_b64(p, n, text);
	tnl_jw_kv(w, key, text);
	tnl_wipe(text, sizeof(text));
}

static const uint8_t zero_nonce[12]; /* each blob has a key of its own */

static void answer_key(struct gw_call *c, const uint8_t *plain, size_t n, const uint8_t *blob, size_t bn)
{
	struct tnl_buf b;
	struct tnl_jw w;
	tnl_buf_init(&b, 16 * 1024);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "KeyId", c->g->kms->arn);
	write_b64(&w, "Plaintext", plain, n);
	if (blob)
		write_b64(&w, "CiphertextBlob", blob, bn);
	else
		tnl_jw_kv(&w, "EncryptionAlgorithm", "SYMMETRIC_DEFAULT");
	tnl_jw_end_obj(&w);
	gw_call_ok(c, &b);
	tnl_buf_fini_wiped(&b);
}

static int requested_bytes(struct gw_call *c, int64_t *n)
{
	bool ok;
	const char *spec = gw_call_str(c, "KeySpec", 32, false, &ok);
	if (!ok)
		return -1;
	if (!gw_call_int(c, "NumberOfBytes", 1, DATA_KEY_MAX, spec ? 32 : 0, n))
		return -1;
	if (spec && strcmp(spec, "AES_128") == 0)
		*n = 16;
	else if (spec && strcmp(spec, "AES_256") != 0)
		*n = 0;
	if (*n)
		return 0;
	gw_call_fail(c, 400, "ValidationException", "Please specify either number of bytes or key spec.");
	return -1;
}

void gw_op_generate_data_key(struct gw_call *c)
{
	uint8_t plain[DATA_KEY_MAX], blob[BLOB_MAX];
	int64_t n = 0;
	struct tnl_buf aad;
	tnl_buf_init(&aad, 8192);
	if (check_call(c, true, &aad) != 0 || requested_bytes(c, &n) != 0)
		goto out;
	tnl_random(plain, (size_t)n);
	blob[0] = BLOB_VERSION;
	tnl_random(blob + 1, SALT);
	struct tnl_gcm *g = blob_cipher(c->g->kms, blob + 1);
	int rc =
	    g ? tnl_gcm_seal(g, zero_nonce, plain, (size_t)n, tnl_buf_data(&aad), tnl_buf_len(&aad), blob + 1 + SALT)
	      : TNL_ENOMEM;
	tnl_gcm_free(g);
	if (rc != 0)
		gw_call_fail(c, 500, "KMSInternalException", "The key could not be made");
	else
		answer_key(c, plain, (size_t)n, blob, 1 + SALT + (size_t)n + 16);
	tnl_wipe(plain, sizeof(plain));
out:
	tnl_buf_fini(&aad);
}

void gw_op_decrypt(struct gw_call *c)
{
	uint8_t plain[DATA_KEY_MAX], blob[BLOB_MAX];
	struct tnl_buf aad;
	bool ok;
	tnl_buf_init(&aad, 8192);
	if (check_call(c, false, &aad) != 0)
		goto out;
	const char *text = gw_call_str(c, "CiphertextBlob", 6144, true, &ok);
	if (!ok)
		goto out;
	int n = tnl_unb64(text, strlen(text), blob, sizeof(blob));
	size_t overhead = 1 + SALT + 16;
	int rc = TNL_ECRYPTO;
	if (n > (int)overhead && blob[0] == BLOB_VERSION) {
		struct tnl_gcm *g = blob_cipher(c->g->kms, blob + 1);
		if (g)
			rc = tnl_gcm_open(g, zero_nonce, blob + 1 + SALT, (size_t)n - 1 - SALT, tnl_buf_data(&aad),
					  tnl_buf_len(&aad), plain);
		tnl_gcm_free(g);
	}
	if (rc != 0)
		gw_call_fail(c, 400, "InvalidCiphertextException",
			     "The ciphertext does not belong to this key and context");
	else
		answer_key(c, plain, (size_t)n - overhead, NULL, 0);
	tnl_wipe(plain, sizeof(plain));
out:
	tnl_buf_fini(&aad);
}
