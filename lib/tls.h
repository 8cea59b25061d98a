/* TLS over memory (the only libssl user).  Ciphertext goes in and out through
 * buffers; the caller moves it.  Versions 1.2 and 1.3.  EOF without
 * close_notify is TNL_ETRUNC. */
#ifndef TNL_TLS_H
#define TNL_TLS_H
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tnl_tls_ctx;
struct tnl_tls;

struct tnl_tls_config {
	bool server;
	const char *cert_pem; /* certificate chain (text, not a path); a server requires one */
	size_t cert_pem_len;
	const char *key_pem;
	size_t key_pem_len;
	const char *ca_pem; /* trust anchors, PEM bundle; a client requires them */
	size_t ca_pem_len;
	bool require_client_cert; /* server with ca_pem */
	/* Of direct links (lib/direct.h): TLS 1.3 alone, nothing is resumed. Server: asked for the name in the
	 * ClientHello before anything is shown; false: a fatal alert, and not a byte more. */
	bool (*admit)(void *ctx, const char *name);
	void *admit_ctx;
	/* Client: SHA-256 of the one public key that is taken, whatever its certificate says; instead of ca_pem. */
	const uint8_t *pin;
	/* Of links between servers: whoever dials shows a server's certificate as well, nothing is resumed, and the
	 * name in the certificate is the caller's to check (tnl_tls_peer_named), at either end. */
	bool peer;
	uint64_t (*unix_time)(void *ctx); /* wall clock for validity checks and tickets */
	void *time_ctx;
};
/* err_text receives a sentence for people. NULL on failure. Reference counted. */
struct tnl_tls_ctx *tnl_tls_ctx_new(const struct tnl_tls_config *c, char *err_text, size_t cap);
void tnl_tls_ctx_free(struct tnl_tls_ctx *c);
struct tnl_tls_ctx *tnl_tls_ctx_ref(struct tnl_tls_ctx *c);

/* Unix seconds at which its own certificate ends; 0: it has none. */
uint64_t tnl_tls_ctx_cert_ends(const struct tnl_tls_ctx *c);
/* Is it for host, as tnl_tls_cert_names? */
bool tnl_tls_ctx_named(const struct tnl_tls_ctx *c, const char *host);

/* Client: `host` is checked against the certificate (name or IP literal), sent
 * as SNI when a name, and is the key for session resumption. Server: NULL. */
struct tnl_tls *tnl_tls_new(struct tnl_tls_ctx *c, const char *host);
void tnl_tls_free(struct tnl_tls *t);

/* Ciphertext in. Reserve gives room (0: it must be read first), commit hands it over. */
uint8_t *tnl_tls_in_reserve(struct tnl_tls *t, size_t *cap);
void tnl_tls_in_commit(struct tnl_tls *t, size_t n);
void tnl_tls_in_eof(struct tnl_tls *t);
/* Ciphertext out. */
const uint8_t *tnl_tls_out_peek(struct tnl_tls *t, size_t *n);
void tnl_tls_out_consume(struct tnl_tls *t, size_t n);
size_t tnl_tls_out_len(const struct tnl_tls *t);

void tnl_tls_settle(struct tnl_tls *t); /* gives empty buffers' memory back: call after events */

/* Drives the handshake: 0 done, TNL_EAGAIN (move bytes), TNL_ETLS, TNL_ECERT, TNL_ETRUNC. */
int tnl_tls_handshake(struct tnl_tls *t) TNL_MUST_USE;
/* Plaintext. read: >0 bytes, TNL_EAGAIN, TNL_EEOF (close_notify), TNL_ETRUNC, TNL_ETLS.
 * write: >0 bytes accepted (at most 16 KiB a record; call again), TNL_EAGAIN when
 * more than 256 KiB of ciphertext wait. Writes are not to be repeated with the same
 * buffer: partial and moving writes are on. */
int tnl_tls_read(struct tnl_tls *t, void *p, size_t n);
int tnl_tls_write(struct tnl_tls *t, const void *p, size_t n);
void tnl_tls_shutdown(struct tnl_tls *t);      /* queues close_notify */
bool tnl_tls_pending(const struct tnl_tls *t); /* ciphertext or plaintext held that read could return */
bool tnl_tls_resumed(const struct tnl_tls *t);
/* Is the name in the certificate that the peer has shown and that was verified: a DNS name or a mail address of its
 * subjectAltName, or its common name? */
bool tnl_tls_peer_named(const struct tnl_tls *t, const char *name);
/* Each of those names; exact: case counts in it. */
void tnl_tls_peer_names(const struct tnl_tls *t, void (*fn)(void *ctx, const char *name, size_t n, bool exact),
			void *ctx);
/* The certificate that the peer has shown, for people: names cut to what fits.  0 or TNL_ECERT: there is none. */
struct tnl_tls_peer {
	char subject[128], issuer[128]; /* common names */
	uint64_t ends;			/* Unix seconds */
};
int tnl_tls_peer(const struct tnl_tls *t, struct tnl_tls_peer *p) TNL_MUST_USE;
const char *tnl_tls_version(const struct tnl_tls *t);
const char *tnl_tls_cipher(const struct tnl_tls *t);
const char *tnl_tls_why(const struct tnl_tls *t); /* text of the last failure: "certificate has expired", … */

/* n bytes that only the two ends of this connection know, once its handshake is done. */
int tnl_tls_export(struct tnl_tls *t, const char *label, uint8_t *out, size_t n) TNL_MUST_USE;
const char *tnl_tls_asked_name(const struct tnl_tls *t); /* server: the name in the ClientHello, or NULL */

/* --- the first certificate of a PEM text ------------------------------------ */
/* Unix seconds.  0 or TNL_ECERT: there is none. */
int tnl_tls_cert_dates(const char *pem, size_t len, uint64_t *not_before, uint64_t *not_after) TNL_MUST_USE;
/* Is host (a name or an address literal) among its subjectAltNames?  The common name does not count. */
bool tnl_tls_cert_names(const char *pem, size_t len, const char *host);

/* --- certificates made by ourselves (tunneld local, tests) ---------------- */
/* ECDSA P-256. Out: PEM strings (tnl_free). ca_* NULL: self-signed CA.
 * names: comma-separated DNS names and IP literals. */
int tnl_x509_make(const char *cn, const char *names, const char *ca_cert_pem, const char *ca_key_pem,
		  uint64_t not_before, uint64_t not_after, char **cert_pem, char **key_pem) TNL_MUST_USE;
/* SHA-256 of the certificate's public key (SubjectPublicKeyInfo), as in struct tnl_tls_config.pin. */
int tnl_x509_key_hash(const char *cert_pem, uint8_t out[32]) TNL_MUST_USE;

#endif
