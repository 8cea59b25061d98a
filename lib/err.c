#include "lib/err.h"

struct row {
	const char *name, *text;
	enum tnl_err_class class;
};

/* Index is the code's absolute value. */
static const struct row table[] = {
    {"TNL_OK", "success", TNL_CLASS_OK},
    {"TNL_EAGAIN", "nothing to do now", TNL_CLASS_AGAIN},
    {"TNL_ENOMEM", "out of memory", TNL_CLASS_FATAL},
    {"TNL_EINVAL", "invalid argument", TNL_CLASS_USAGE},
    {"TNL_ELIMIT", "configured limit reached", TNL_CLASS_LIMIT},
    {"TNL_EEOF", "end of input", TNL_CLASS_IO},
    {"TNL_ECLOSED", "closed", TNL_CLASS_PEER},
    {"TNL_ESYNTAX", "malformed input", TNL_CLASS_PEER},
    {"TNL_EDIGEST", "payload digest mismatch", TNL_CLASS_PEER},
    {"TNL_EVERSION", "unsupported version", TNL_CLASS_PEER},
    {"TNL_ETYPE", "unknown type", TNL_CLASS_PEER},
    {"TNL_ETOOBIG", "too big", TNL_CLASS_LIMIT},
    {"TNL_EPROTO", "protocol violation", TNL_CLASS_PEER},
    {"TNL_ETLS", "TLS failure", TNL_CLASS_IO},
    {"TNL_ECERT", "certificate not accepted", TNL_CLASS_PEER},
    {"TNL_ETRUNC", "connection ended too early", TNL_CLASS_IO},
    {"TNL_EAUTH", "not authorised", TNL_CLASS_PEER},
    {"TNL_EEXPIRED", "expired or not yet valid", TNL_CLASS_PEER},
    {"TNL_ENOTFOUND", "not found", TNL_CLASS_USAGE},
    {"TNL_EEXIST", "exists already", TNL_CLASS_USAGE},
    {"TNL_ETIMEOUT", "timed out", TNL_CLASS_IO},
    {"TNL_EREFUSED", "refused", TNL_CLASS_PEER},
    {"TNL_ECRYPTO", "decryption or key failure", TNL_CLASS_PEER},
    {"TNL_EIO", "input/output error", TNL_CLASS_IO},
    {"TNL_ECONF", "wrong configuration", TNL_CLASS_USAGE},
    {"TNL_EUNREACH", "cannot reach the peer", TNL_CLASS_IO},
    {"TNL_EBUSY", "busy", TNL_CLASS_AGAIN},
};

_Static_assert(sizeof(table) / sizeof(table[0]) == -TNL_ERR_MIN_, "one row for each error code");

static const struct row unknown = {"TNL_E?", "unknown error", TNL_CLASS_FATAL};

static const struct row *row(int err)
{
	return err <= 0 && err > TNL_ERR_MIN_ ? &table[-err] : &unknown;
}

const char *tnl_err_name(int err)
{
	return row(err)->name;
}

const char *tnl_err_text(int err)
{
	return row(err)->text;
}

enum tnl_err_class tnl_err_class(int err)
{
	return row(err)->class;
}
