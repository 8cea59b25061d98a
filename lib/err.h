/* Error codes of the library: 0 or a negative TNL_E…; one table gives name
 * and text.  errno is used in the daemon only. */
#ifndef TNL_ERR_H
#define TNL_ERR_H

enum tnl_err {
	TNL_OK = 0,
	TNL_EAGAIN = -1,    /* nothing (more) to do now: feed bytes, make room or wait */
	TNL_ENOMEM = -2,    /* allocator failed */
	TNL_EINVAL = -3,    /* bad argument (caller's fault) */
	TNL_ELIMIT = -4,    /* a configured maximum would be passed */
	TNL_EEOF = -5,	    /* orderly end of input */
	TNL_ECLOSED = -6,   /* object is closed / session is over */
	TNL_ESYNTAX = -7,   /* peer sent something that does not parse */
	TNL_EDIGEST = -8,   /* payload digest mismatch */
	TNL_EVERSION = -9,  /* unsupported version */
	TNL_ETYPE = -10,    /* unknown type; ignore and count */
	TNL_ETOOBIG = -11,  /* message, head or frame over the limit */
	TNL_EPROTO = -12,   /* right syntax, wrong moment or meaning */
	TNL_ETLS = -13,	    /* TLS alert or handshake failure */
	TNL_ECERT = -14,    /* certificate not trusted / wrong host / expired */
	TNL_ETRUNC = -15,   /* connection ended without a proper close */
	TNL_EAUTH = -16,    /* signature, token or key wrong */
	TNL_EEXPIRED = -17, /* signature date or token out of its time */
	TNL_ENOTFOUND = -18,
	TNL_EEXIST = -19,
	TNL_ETIMEOUT = -20,
	TNL_EREFUSED = -21, /* peer or policy said no */
	TNL_ECRYPTO = -22,  /* cipher or key failure, tag mismatch */
	TNL_EIO = -23,	    /* system call failed (daemon) */
	TNL_ECONF = -24,    /* configuration wrong */
	TNL_EUNREACH = -25, /* cannot reach the peer (connect, DNS) */
	TNL_EBUSY = -26,    /* the one thing that can be had is in use */
	TNL_ERR_END = -27   /* one below the last */
};

#define TNL_MUST_USE __attribute__((warn_unused_result))

const char *tnl_err_name(int err); /* "TNL_EDIGEST"; never NULL */
const char *tnl_err_text(int err); /* "payload digest mismatch"; never NULL */

#endif
