# What `nats:2.15-alpine` is to us, where it cannot be pulled: the server, a shell, wget.
FROM scratch
COPY nats-server busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc/nats /tmp && chmod 1777 /tmp \
    && printf 'http: 8222\n' > /etc/nats/nats-server.conf
EXPOSE 4222 6222 8222
ENTRYPOINT ["/bin/nats-server"]
CMD ["--config", "/etc/nats/nats-server.conf"]
