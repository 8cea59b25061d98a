#include "lib/err.h"
#include "lib/num.h"

struct row {
	const char *name, *text;
};

/* Index is the code's absolute value. */
static const struct row table[] = {
    {"TNL_OK", "success"},
    {"TNL_EAGAIN", "nothing to do now"},
    {"TNL_ENOMEM", "out of memory"},
    {"TNL_EINVAL", "invalid argument"},
    {"TNL_ELIMIT", "configured limit reached"},
    {"TNL_EEOF", "end of input"},
    {"TNL_ECLOSED", "closed"},
    {"TNL_ESYNTAX", "malformed input"},
    {"TNL_EDIGEST", "payload digest mismatch"},
    {"TNL_EVERSION", "unsupported version"},
    {"TNL_ETYPE", "unknown type"},
    {"TNL_ETOOBIG", "too big"},
    {"TNL_EPROTO", "protocol violation"},
    {"TNL_ETLS", "TLS failure"},
    {"TNL_ECERT", "certificate not accepted"},
    {"TNL_ETRUNC", "connection ended too early"},
    {"TNL_EAUTH", "not authorised"},
    {"TNL_EEXPIRED", "expired or not yet valid"},
    {"TNL_ENOTFOUND", "not found"},
    {"TNL_EEXIST", "exists already"},
    {"TNL_ETIMEOUT", "timed out"},
    {"TNL_EREFUSED", "refused"},
    {"TNL_ECRYPTO", "decryption or key failure"},
    {"TNL_EIO", "input/output error"},
    {"TNL_ECONF", "wrong configuration"},
    {"TNL_EUNREACH", "cannot reach the peer"},
    {"TNL_EBUSY", "busy"},
};

_Static_assert(TNL_COUNT(table) == -TNL_ERR_END, "one row for each error code");

static const struct row unknown = {"TNL_E?", "unknown error"};

static const struct row *row(int err)
{
	return err <= 0 && err > TNL_ERR_END ? &table[-err] : &unknown;
}

const char *tnl_err_name(int err)
{
	return row(err)->name;
}

const char *tnl_err_text(int err)
{
	return row(err)->text;
}
