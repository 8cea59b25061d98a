/* Certificates made by ourselves: ECDSA P-256, version 3, for `tunneld local` and tests. */
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/tls.h"
#include <openssl/bio.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#ifndef OPENSSL_IS_BORINGSSL
#error "these are OpenSSL's headers: tunneld needs BoringSSL's (android-libboringssl-dev, or BORINGSSL_PREFIX=)"
#endif

static EVP_PKEY *new_key(void)
{
	EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
	EVP_PKEY *k = EVP_PKEY_new();

	if (ec && k && EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(k, ec))
		return k;
	EC_KEY_free(ec);
	EVP_PKEY_free(k);
	return NULL;
}

static BIO *mem(const char *s)
{
	return BIO_new_mem_buf(s, (int)strlen(s));
}

static char *take_text(BIO *b)
{
	const uint8_t *p = NULL;
	size_t n = 0;

	return BIO_mem_contents(b, &p, &n) ? tnl_strndup((const char *)p, n) : NULL;
}

static int set_serial(X509 *x)
{
	uint8_t bytes[16];
	BIGNUM *bn;
	int ok;

	tnl_random(bytes, sizeof(bytes));
	bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40); /* positive, and always 16 octets */
	bn = BN_bin2bn(bytes, sizeof(bytes), NULL);
	ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x));
	BN_free(bn);
	return ok;
}

/* One entry of the list: an address when it parses as one, else a DNS name. */
static int add_name(GENERAL_NAMES *names, const char *s, size_t n)
{
	char text[256];
	GENERAL_NAME *g = GENERAL_NAME_new();
	ASN1_OCTET_STRING *ip;
	ASN1_IA5STRING *dns;

	if (!g || !n || n >= sizeof(text))
		goto fail;
	memcpy(text, s, n);
	text[n] = 0;
	ip = a2i_IPADDRESS(text);
	if (ip) {
		GENERAL_NAME_set0_value(g, GEN_IPADD, ip);
	} else {
		ERR_clear_error();
		dns = ASN1_IA5STRING_new();
		if (!dns || !ASN1_STRING_set(dns, text, (int)n)) {
			ASN1_IA5STRING_free(dns);
			goto fail;
		}
		GENERAL_NAME_set0_value(g, GEN_DNS, dns);
	}
	if (sk_GENERAL_NAME_push(names, g))
		return 1;
fail:
	GENERAL_NAME_free(g);
	return 0;
}

static int add_names(X509 *x, const char *list)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	int ok = names != NULL;

	while (ok && list && *list) {
		size_t skip = strspn(list, " \t,"), n = strcspn(list + skip, " \t,");

		if (n)
			ok = add_name(names, list + skip, n);
		list += skip + n;
	}
	if (ok && sk_GENERAL_NAME_num(names) > 0)
		ok = X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0);
	GENERAL_NAMES_free(names);
	return ok;
}

static int key_id(X509 *x, uint8_t id[20])
{
	const ASN1_BIT_STRING *k = X509_get0_pubkey_bitstr(x);

	if (!k)
		return 0;
	tnl_sha1(ASN1_STRING_get0_data(k), (size_t)ASN1_STRING_length(k), id);
	return 1;
}

/* Subject and authority key identifiers: strict verifiers ask for both. */
static int add_key_ids(X509 *x, X509 *issuer)
{
	uint8_t id[20];
	ASN1_OCTET_STRING *ski = ASN1_OCTET_STRING_new();
	AUTHORITY_KEYID *aki = AUTHORITY_KEYID_new();
	int ok = ski && aki && key_id(x, id) && ASN1_OCTET_STRING_set(ski, id, sizeof(id)) &&
		 X509_add1_ext_i2d(x, NID_subject_key_identifier, ski, 0, 0);

	if (ok) {
		aki->keyid = ASN1_OCTET_STRING_new();
		ok = aki->keyid && key_id(issuer, id) && ASN1_OCTET_STRING_set(aki->keyid, id, sizeof(id)) &&
		     X509_add1_ext_i2d(x, NID_authority_key_identifier, aki, 0, 0);
	}
	ASN1_OCTET_STRING_free(ski);
	AUTHORITY_KEYID_free(aki);
	return ok;
}

static int add_usage(X509 *x, bool ca)
{
	/* The first octet of the bit string: digitalSignature 0x80, keyCertSign 0x04, cRLSign 0x02.
	 * A self-signed one may serve by itself too. */
	uint8_t bits = ca ? 0x86 : 0x80;
	BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
	ASN1_BIT_STRING *ku = ASN1_BIT_STRING_new();
	EXTENDED_KEY_USAGE *eku = EXTENDED_KEY_USAGE_new();
	int ok = bc && ku && eku && ASN1_BIT_STRING_set(ku, &bits, 1);

	if (ok) {
		bc->ca = ca ? 0xff : 0;
		ok = X509_add1_ext_i2d(x, NID_basic_constraints, bc, 1, 0) &&
		     X509_add1_ext_i2d(x, NID_key_usage, ku, 1, 0);
	}
	if (ok && !ca)
		ok = sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_server_auth)) &&
		     sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_client_auth)) &&
		     X509_add1_ext_i2d(x, NID_ext_key_usage, eku, 0, 0);
	BASIC_CONSTRAINTS_free(bc);
	ASN1_BIT_STRING_free(ku);
	EXTENDED_KEY_USAGE_free(eku);
	return ok;
}

static int fill(X509 *x, const char *cn, const char *names, X509 *issuer, EVP_PKEY *key, uint64_t from, uint64_t to)
{
	X509_NAME *subject = X509_get_subject_name(x);
	bool ca = issuer == x;

	return X509_set_version(x, X509_VERSION_3) && set_serial(x) &&
	       X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, (const uint8_t *)cn, (int)strlen(cn),
					  -1, 0) &&
	       X509_set_issuer_name(x, ca ? subject : X509_get_subject_name(issuer)) &&
	       ASN1_TIME_set(X509_getm_notBefore(x), (time_t)from) &&
	       ASN1_TIME_set(X509_getm_notAfter(x), (time_t)to) && X509_set_pubkey(x, key) && add_usage(x, ca) &&
	       add_key_ids(x, issuer) && add_names(x, names);
}

static int export_pem(X509 *x, EVP_PKEY *key, char **cert_pem, char **key_pem)
{
	BIO *c = BIO_new(BIO_s_mem()), *k = BIO_new(BIO_s_mem());
	int rc = TNL_ENOMEM;

	*cert_pem = *key_pem = NULL;
	if (c && k && PEM_write_bio_X509(c, x) && PEM_write_bio_PKCS8PrivateKey(k, key, NULL, NULL, 0, NULL, NULL)) {
		*cert_pem = take_text(c);
		*key_pem = take_text(k);
		rc = *cert_pem && *key_pem ? 0 : TNL_ENOMEM;
	}
	if (rc) {
		tnl_free(*cert_pem);
		if (*key_pem)
			tnl_free_wiped(*key_pem, strlen(*key_pem));
		*cert_pem = *key_pem = NULL;
	}
	BIO_free(c);
	BIO_free(k);
	return rc;
}

int tnl_x509_make(const char *cn, const char *names, const char *ca_cert_pem, const char *ca_key_pem,
		  uint64_t not_before, uint64_t not_after, char **cert_pem, char **key_pem)
{
	EVP_PKEY *key = new_key(), *ca_key = NULL;
	X509 *x = X509_new(), *ca = NULL;
	BIO *b;
	int rc = TNL_ENOMEM;

	if (!key || !x)
		goto out;
	rc = TNL_EINVAL;
	if (ca_cert_pem) {
		b = mem(ca_cert_pem);
		ca = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;
		BIO_free(b);
		b = ca_key_pem ? mem(ca_key_pem) : NULL;
		ca_key = b ? PEM_read_bio_PrivateKey(b, NULL, NULL, NULL) : NULL;
		BIO_free(b);
		if (!ca || !ca_key || !X509_check_private_key(ca, ca_key))
			goto out;
	}
	if (!fill(x, cn, names, ca ? ca : x, key, not_before, not_after) ||
	    !X509_sign(x, ca ? ca_key : key, EVP_sha256()))
		goto out;
	rc = export_pem(x, key, cert_pem, key_pem);
out:
	ERR_clear_error();
	X509_free(ca);
	EVP_PKEY_free(ca_key);
	X509_free(x);
	EVP_PKEY_free(key);
	return rc;
}
